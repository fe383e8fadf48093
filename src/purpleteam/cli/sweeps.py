"""sweep: the product of what a file lists."""

from pathlib import Path
from typing import Annotated

from purpleteam.cli.build import Answer, How
from purpleteam.cli.runs import Address, EngineName, Gpus, Out, Workers
from purpleteam.cli.screen import say
from purpleteam.core.progress import Progress
from purpleteam.verbs.verb import Option


def sweep(
    file: Annotated[Path, Option(name="FILE", kind=Path, help="YAML or TOML; see docs/sweeps.md.")],
    *,
    engine: EngineName = "inline",
    workers: Workers = None,
    address: Address = None,
    gpus: Gpus = 0.0,
    out: Out = None,
    how: How,
    progress: Progress,
) -> Answer:
    """The product of what a file lists, a cell each; what is there already is not done again.

    Exit code 2 where a cell failed: the same command tries it again.
    """
    from purpleteam.pipeline.plan import read_plan
    from purpleteam.pipeline.sweep import run_sweep

    plan = read_plan(file)
    folder = out or Path("runs") / plan.name
    done = run_sweep(
        plan,
        folder,
        engine=engine,
        workers=workers,
        address=address,
        gpus=gpus,
        command=how.typed,
        progress=progress,
        told=lambda line: None if how.quiet or how.as_json else say(line),
    )
    cells = "1 cell" if done.cells == 1 else f"{done.cells} cells"
    lines = [f"{cells}: {done.done} done, {done.before} of them before"]
    lines += [f"{len(done.failures)} failed"] if done.failures else []
    lines += [f"table: {done.table}", f"report: {done.report}"]
    return Answer(values=done.to_json(), shown=lines, exit_code=2 if done.failures else 0)

"""What a cell is named by: its call, the digests of what that is about, and the cells it needs.

Images and models are opened once. Where opening runs code of the user's, a process beside does it:
a net that ends its process ends that one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

from purpleteam.core.errors import ConfigError, ModelError, PurpleError
from purpleteam.core.factory import is_factory
from purpleteam.core.runfolder import key_of
from purpleteam.pipeline.engines import OPEN, Engine, Job
from purpleteam.pipeline.engines._job import DESCRIBED, digests_of, forget
from purpleteam.pipeline.engines.inline import Beside
from purpleteam.pipeline.plan import MAKERS, TAKES, Cell, Plan
from purpleteam.verbs import VERBS

STAGE = "sweep"
ABOUT = (*TAKES, *DESCRIBED)
DIED = ("crashed ", "took more than ")
"""How an outcome begins that tells of the process, not of an error of the call."""


class Naming:
    """The job of each cell, named by all that its result depends on."""

    def __init__(self, plan: Plan, root: Path) -> None:
        self.seconds, self.threads, self.root = plan.seconds, plan.threads, str(root)
        self.unopened: dict[str, str] = {}
        """Why cells cannot be begun, by key: what they are about ended the process."""
        self.foreign = False
        """Whether code of the user's is run."""
        self._made = {block.makes: block.place for block in plan.blocks if block.makes}
        self._digests: dict[tuple[Any, ...], Mapping[str, str | None]] = {}
        self._makers: dict[Cell, Job] = {}
        self._beside: Engine | None = None
        forget()

    def close(self) -> None:
        """End the process that opened what code of the user's makes."""
        if self._beside is not None:
            self._beside.close()
        self._beside = None

    def job(self, cell: Cell) -> Job:
        """Return the call of a cell.

        Raises:
            PurpleError: images or a model that it names cannot be opened.
        """
        if cell in self._makers:
            return self._makers[cell]
        options, needs = dict(cell.options), dict[str, str]()
        for name, maker in cell.uses.items():
            made = self.job(maker)
            options[name] = f"{made.makes}{maker.gives(name)}"
            needs[name] = made.key
        digests = self._opened(cell)
        depends_on = {"verb": cell.verb, "options": options, **digests}
        if cell.verb in MAKERS:
            depends_on |= {"makes": cell.makes}
        if needs:
            depends_on |= {"needs": needs}
        key = key_of(STAGE, depends_on)
        if reason := digests.get("unopened"):
            self.unopened[key] = reason
        job = Job(
            key=key,
            verb=cell.verb,
            options=options,
            makes=f"models/{key.partition(':')[2][:16]}/{cell.makes}" if cell.makes else "",
            uses=tuple(cell.uses),
            root=self.root,
            seconds=self.seconds,
        )
        if cell.makes:
            self._makers[cell] = job
        return job

    def _opened(self, cell: Cell) -> Mapping[str, str | None]:
        """Return the digests of what a cell is about, of what no other cell makes."""
        options = {k: v for k, v in cell.options.items() if k in ABOUT and k not in cell.uses}
        if "model" in cell.uses:  # else the one that the verb takes by default is meant
            options["model"] = None
        if "images" not in cell.uses:
            takes = signature(VERBS[cell.verb].call).parameters
            options.setdefault("images", takes["images"].default)
        about = (cell.verb, *options.items())
        if about not in self._digests:
            foreign = any(is_factory(str(options.get(name, ""))) for name in (*TAKES, "arch"))
            self.foreign |= foreign
            opened = self._beside_opened if foreign else digests_of
            try:
                self._digests[about] = opened(cell.verb, options)
            except PurpleError as error:
                for name in TAKES:
                    if (place := self._made.get(options.get(name) or "")) is not None:
                        hint = f"cells[{place}] makes {options[name]!r} and must come before"
                        raise ConfigError(f"{error}; {hint} cells[{cell.block}]") from None
                raise
        return self._digests[about]

    def _beside_opened(self, verb: str, options: Mapping[str, Any]) -> Mapping[str, str | None]:
        if self._beside is None:
            self._beside = Beside(1, self.threads)
        given = {"verb": verb, "options": options}
        job = Job(key=OPEN, verb=OPEN, options=given, seconds=self.seconds)
        (outcome,) = self._beside.run(deque([job]))
        if outcome.error.startswith(DIED):
            return {"unopened": f"{outcome.error}, when it was opened"}
        if outcome.error:
            raise ModelError(outcome.error)
        return outcome.records[0]

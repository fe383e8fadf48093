"""The measured parts of README.md and docs/, written anew from results/; no number there is typed.

`python docs/update_tables.py` rewrites each block between `<!-- results:NAME -->` and
`<!-- /results -->` from results/NAME.json, and each `<!-- code:NAME -->` from the registries.
With `--check` it writes nothing, and exits 1 where a page and the results differ.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # pages are made from this folder alone

import abuse_tables
import attack_tables
import backdoor_tables
import certified_tables
import colour_tables
import privacy_tables
import scale_images_tables
import scale_tables
import scan_tables
import serving_tables
import verdict_tables

from purpleteam.assignment.chapters import beside
from purpleteam.core.records import Measurement, record_from_json
from purpleteam.report.collect import Evidence, model_name
from purpleteam.report.markdown import table
from purpleteam.report.numbers import number_of, number_or_dash
from purpleteam.report.tables import render_results
from purpleteam.report.view import DASH, Cell, Number, Table, row

__all__ = ["BLOCK", "pictures", "render", "updated"]

ROOT = Path(__file__).resolve().parent.parent
DOCS = (
    "abuse",
    "assignment",
    "attacks",
    "backdoors",
    "certificates",
    "colour",
    "large",
    "measured",
    "privacy",
    "scanning",
    "signing",
    "sweeps",
)
PAGES = tuple(
    ROOT / f"{name}.md" for name in ("README", "SECURITY", *(f"docs/{one}" for one in DOCS))
)
RESULTS = ROOT / "results"
BLOCK = re.compile(r"(<!-- (?:results|code):([a-z_]+) -->\n)(.*?)(<!-- /results -->)", re.DOTALL)
NOT_YET = "*Not yet measured.*\n"


def updated(text: str, results: Path = RESULTS) -> str:
    """Return the page with every block written anew from its file of results."""
    return BLOCK.sub(lambda match: match[1] + render(match[2], results) + match[4], text)


def render(name: str, results: Path = RESULTS) -> str:
    """Return the content of one block; a file that is not there yet is said to be missing."""
    path = results / f"{FILES.get(name, name)}.json"
    if name in CODE:
        return "\n" + CODE[name]().strip() + "\n\n"
    if not path.exists():
        return NOT_YET
    return "\n" + BLOCKS[name](path).strip() + "\n\n"


def _evidence(path: Path) -> Evidence:
    content = json.loads(path.read_text(encoding="utf-8"))
    records = [record_from_json(one) for one in content["records"]]
    return Evidence(Path(), content["run"], records)


def _mnist(path: Path) -> str:
    content = json.loads(path.read_text(encoding="utf-8"))
    return "\n\n".join([_circumstances(content["run"]), render_results(path).strip()])


def _claims_of(path: Path) -> str:
    """Return what two course reports published, beside what the same thing measures."""
    claims = _claims(_evidence(path))
    return NOT_YET if claims is None else "\n".join(table(claims)).strip()


def _short(one: Measurement | None) -> str:
    return DASH if one is None else attack_tables.shortly(one)


def _mnist_summary(path: Path) -> str:
    """Return clean and robust accuracy of the models that a run trains, without records."""
    evidence = _evidence(path)
    shown = {"baseline": "undefended", "hardened-fast": "hardened by one step (fast)"}
    shown |= {"hardened": "hardened by PGD"}
    lines = ["| Model | Clean accuracy | Robust accuracy, ε = 0.3 in linf |", "| --- " * 3 + "|"]
    for name, told in shown.items():
        clean = next(
            one
            for one in evidence.measurements
            if (one.name, model_name(one)) == ("clean_accuracy", name)
        )
        robust = evidence.weakest(name, 0.3)
        lines.append(f"| {told} | {_short(clean)} | {_short(robust)} |")
    return "\n".join(lines) + "\n\nTest images: 10,000. Intervals are 95 %."


def _circumstances(run: Mapping[str, Any]) -> str:
    """Return what a reader needs to judge a number: who measured what, on which machine."""
    versions, machine, asked = run["versions"], run["machine"], run["asked"]
    return (
        f"Profile `{asked['dataset']}`, seed {asked['seed']}, purpleteam {versions['purpleteam']}, "
        f"torch {versions['torch']}, Python {versions['python']}, "
        f"{machine['system']} {machine['processor']}, {asked['threads']} of "
        f"{machine['cores']} cores. Intervals are 95 %; in brackets stands the record in "
        "[results/mnist.json](../results/mnist.json) that backs the number."
    )


def _claims(evidence: Evidence) -> Table | None:
    """Return what the earlier reports published beside the same thing measured here."""
    groups: dict[tuple[str, ...], list[Measurement]] = {}
    for one in evidence.measurements:
        if beside(evidence, one):
            key = (one.name, model_name(one), *map(str, _attack(one)))
            groups.setdefault(key, []).append(one)
    rows = tuple(
        row(
            ", ".join([found[0].name.replace("_", " "), *_attack(found[0])]),
            model_name(found[0]),
            _theirs(beside(evidence, found[0])),
            _joined([number_of(one) for one in found]),
            (number_or_dash(_itself(evidence, found[0])),),
        )
        for found in groups.values()
    )
    columns = ("What", "Model", "Published", "Measured here", "Attacked itself, same ε")
    caption = "What the two course reports published, and the same thing measured here"
    return Table(caption=caption, columns=columns, rows=rows) if rows else None


def _attack(one: Measurement) -> list[str]:
    return [
        f"{word}{one.how[key]}"
        for key, word in (("attack", ""), ("epsilon", "ε = "))
        if key in one.how
    ]


def _itself(evidence: Evidence, one: Measurement) -> Measurement | None:
    if one.name != "transfer_accuracy":
        return None
    return evidence.weakest(model_name(one), one.how["epsilon"])


def _joined(numbers: list[Number]) -> Cell:
    """Return one value for each seed, never pooled."""
    return tuple(part for one in numbers for part in (one, "; "))[:-1]


def _theirs(published: list[tuple[str, Number | str]]) -> str:
    texts = (
        f"{report}: {value.text if isinstance(value, Number) else value}"
        for report, value in published
    )
    return "; ".join(texts) or DASH


def _training(path: Path) -> str:
    found = json.loads(path.read_text(encoding="utf-8"))
    names = {
        "purpleteam": "Purpleteam's loop",
        "bare": "forward, backward and step alone",
        "seeds": "DataLoader over a TensorDataset, float32",
    }
    lines = ["| One epoch | Processor time | Times the bare loop |", "| --- | --- | --- |"]
    lines += [
        f"| {text} | {found['least'][name]:.1f} s | {found['over_bare'][name]:.2f} |"
        for name, text in names.items()
    ]
    precision = "bfloat16" if found["fast_bfloat16"] else "float32"
    return "\n".join(lines) + (
        f"\n\n{found['images']:,} images ({found['data']}), batch {found['batch_size']}, "
        f"`{found['architecture']}`, {found['threads']} thread, least of "
        f"{found['repetitions']} turns; the first two in {precision}; "
        f"{found['machine']['model']}, torch {found['versions']['torch']}."
    )


def _install(path: Path) -> str:
    found = json.loads(path.read_text(encoding="utf-8"))
    return (
        f"The base install is {found['distributions']} distributions and "
        f"{found['megabytes']:.0f} MB, without torch (Python {found['versions']['python']}, "
        f"{found['machine']['system']} {found['machine']['processor']})."
    )


def _hostile(path: Path) -> str:
    """Return what each attack of the hostile set did to the app, and what a prediction costs."""
    found = json.loads(path.read_text(encoding="utf-8"))
    lines = ["| Attack | Clients | Memory | Polite answers | Refused | Median |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    lines += [
        f"| {one['attack']} | {one['clients']} | +{one['growth_mb']:.1f} MB | {one['answers']} | "
        f"{len(one['failed'])} | {one['p50_ms']:.1f} ms |"
        for one in found["rows"]
    ]
    least = {name: min(values) for name, values in found["cpu_microseconds"].items()}
    return "\n".join(lines) + (
        f"\n\n{found['seconds_each']:g} s each, one after the other; memory is what the app holds "
        f"over its {found['resident_mb']:.0f} MB before. 99 of 100 polite answers came within "
        f"{found['p99_ms']['whole set']:.0f} ms under the whole set, within "
        f"{found['p99_ms']['quiet']:.0f} ms without. Processor time of a prediction: "
        f"{least['bounded']:.0f} µs; {least['httptools']:.0f} µs under uvicorn's httptools as it "
        f"comes, {least['h11']:.0f} µs under its h11. {found['machine']['processor']}, "
        f"{found['machine']['cores']} cores, load {found['load']:.0f} while it ran."
    )


def _own(path: Path, key: str = "answer") -> str:
    """Return the answer to the README's own command, word for word."""
    found = json.loads(path.read_text(encoding="utf-8"))
    return f"```text\n{found[key]}\n```"


CODE: dict[str, Callable[[], str]] = {"attacks_by_name": attack_tables.registry}
BLOCKS: dict[str, Callable[[Path], str]] = {
    "abuse": abuse_tables.attackers,
    "abuse_copies": abuse_tables.copies,
    "abuse_people": abuse_tables.people,
    "attacks": attack_tables.ladder,
    "attacks_speed": attack_tables.speed,
    "audit": serving_tables.audit,
    "assignment_claims": _claims_of,
    "backdoors": backdoor_tables.backdoors,
    "calibration": verdict_tables.calibration,
    "certified": certified_tables.rows,
    "certified_judged": certified_tables.judged,
    "certified_speed": certified_tables.speed,
    **colour_tables.BLOCKS,
    "drawn_digits": serving_tables.drawn_digits,
    "front": certified_tables.front,
    "hostile": _hostile,
    "inputs": abuse_tables.inputs,
    "inputs_known": abuse_tables.inputs_known,
    "install": _install,
    "judged": verdict_tables.judged,
    "kills": scale_tables.kills,
    "mnist": _mnist,
    "own": _own,
    "own_python": lambda path: _own(path, "answer_in_python"),
    "partition": backdoor_tables.partition,
    **privacy_tables.BLOCKS,
    "refusal": serving_tables.refusal,
    "reproducible": verdict_tables.reproducible,
    "restart": serving_tables.restart,
    "scale": scale_tables.scale,
    **scale_images_tables.BLOCKS,
    "scale_million": scale_tables.million,
    "scan": scan_tables.files,
    "scan_cost": scan_tables.cost,
    "scan_fuzz": scan_tables.fuzz,
    "scan_source": scan_tables.source,
    "scan_unseen": scan_tables.unseen,
    "serve": serving_tables.serve,
    "signing": serving_tables.signing,
    "summary_attacks": attack_tables.summary,
    "summary_backdoors": backdoor_tables.summary,
    "summary_mnist": _mnist_summary,
    "training": _training,
    "verdicts": verdict_tables.scans,
    "verdicts_ladder": verdict_tables.ladder,
    "verdicts_loops": verdict_tables.loops,
}
FILES = {
    "certified_judged": "judged",
    "certified_speed": "certified",
    **{f"summary_{name}": name for name in ("attacks", "backdoors", "mnist")},
    **{f"abuse_{name}": "abuse" for name in ("copies", "people")},
    **dict.fromkeys(colour_tables.BLOCKS, "colour"),
    "assignment_claims": "mnist",
    "inputs_known": "inputs",
    "own_python": "own",
    **dict.fromkeys(privacy_tables.BLOCKS, "privacy"),
    **dict.fromkeys(scale_images_tables.BLOCKS, "scale"),
    "scale_million": "scale",
    **{f"scan_{name}": "scan" for name in ("cost", "fuzz", "source", "unseen")},
    **{f"verdicts_{name}": "verdicts" for name in ("ladder", "loops")},
}
"""Where a block's file of results has another name."""
PICTURES: dict[str, Callable[[Path], str]] = {
    f"front-{radius}.svg": partial(certified_tables.front_picture, radius=float(radius))
    for radius in ("0.1", "0.3")
}
"""Of docs/images, each from the file of results that its name begins with."""


def pictures(results: Path = RESULTS) -> dict[str, str]:
    """Return the drawings by name; those whose results are not there yet are left out."""
    files = {name: results / f"{name.partition('-')[0]}.json" for name in PICTURES}
    return {name: PICTURES[name](path) for name, path in files.items() if path.exists()}


def main() -> None:
    """Rewrite the pages and drawings, or with --check say whether they are what the results say."""
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = updated(before)
        if "--check" in sys.argv[1:] and before != after:
            sys.exit(f"{page.name} and results/ differ: make docs")
        page.write_text(after, encoding="utf-8")
    for name, picture in pictures().items():
        file = ROOT / "docs" / "images" / name
        if "--check" in sys.argv[1:] and (not file.exists() or file.read_text("utf-8") != picture):
            sys.exit(f"{name} and results/ differ: make docs")
        file.write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()

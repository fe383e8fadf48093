"""Is a run folder as the run left it? Chain, end, status, records, files: what each one says.

It finds accidents, lines that were edited, moved, added or lost, and files that were exchanged.
It does not find what an owner of records.jsonl and run.json together has written anew: for that
the numbers are measured again (`purple replay`), and one day signed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from purpleteam.core.digest import sha256_file, short_id
from purpleteam.core.errors import RunError
from purpleteam.core.ledger import Ledger, Look, end_differs
from purpleteam.core.records import NO_METRIC, Artefact, Note, record_from_json
from purpleteam.core.runfolder import CELL, RunFolder

PROVES = (
    "A pass rules out accident, reordering and edits of one file. Whoever owns both "
    "records.jsonl and run.json can write them anew; only measuring again shows that."
)
WRITTEN_LAST = frozenset({"run.json", "records.jsonl", "report.html", "report.md"})
"""Files of a run that no record names: they hold the records, or are made of them."""
MANY = 5
"""So many names or lines are told; the rest are counted."""

Verdict = Literal["pass", "fail", "unknown"]


@dataclass(frozen=True)
class Part:
    """What one look at the folder says; `unknown` where there is too little to tell."""

    name: str
    verdict: Verdict
    message: str
    found: tuple[str, ...] = ()
    """Each thing that is wrong; the message names the first few."""


@dataclass(frozen=True)
class Verification:
    """What was looked at, one part each."""

    parts: tuple[Part, ...]
    status: str
    """What run.json says: running, stopped, incomplete or finished."""

    @property
    def verdict(self) -> Verdict:
        """`fail` where any part does, else `unknown` where any is, else `pass`."""
        found = {part.verdict for part in self.parts}
        return "fail" if "fail" in found else "unknown" if "unknown" in found else "pass"

    def of(self, verdict: Verdict) -> list[Part]:
        """Return the parts with that verdict."""
        return [part for part in self.parts if part.verdict == verdict]

    def to_json(self) -> dict[str, Any]:
        """Return the fields of `purple verify --json`."""
        return {
            "verdict": self.verdict,
            "status": self.status,
            "parts": [asdict(part) for part in self.parts],
            "proves": PROVES,
        }


def verify(path: Path) -> Verification:
    """Look at the records and at every file of a run.

    Raises:
        RunError: the folder is no run, or its run.json cannot be read.
    """
    known = verify_records(path)
    run = RunFolder.open(path)
    return Verification((*known.parts, *_files(run)), known.status)


def verify_records(path: Path) -> Verification:
    """Look at the records alone: their chain, their end, the run's status, what each line says.

    Raises:
        RunError: the folder is no run, or its run.json cannot be read.
    """
    info = RunFolder.open(path).info
    look = Ledger(path / "records.jsonl").look()
    status = str(info.get("status"))
    parts = (_chain(look), _end(info, look), _status(status), _lines(look))
    return Verification(parts, status)


def _chain(look: Look) -> Part:
    if not look.lines and not look.problems:
        return Part("chain", "fail", "records.jsonl holds no record")
    fine = f"{len(look.lines)} lines, each follows from the one before"
    return _part("chain", [problem.rsplit("/", 1)[-1] for problem in look.problems], fine)


def _end(info: Mapping[str, Any], look: Look) -> Part:
    if differs := end_differs(info.get("records"), look.head):
        return Part("end", "fail", differs)
    if "records" in info:
        return Part("end", "pass", f"{look.head['lines']} lines, {look.head['chain'][:19]}")
    if info.get("status") == "running":
        return Part("end", "unknown", "a run that has not ended names no end of its records")
    return Part(
        "end",
        "unknown",
        "run.json names no end of the records: it is older than that entry, or the entry was "
        "taken out; lines that are missing at the end would not show",
    )


def _status(status: str) -> Part:
    unfinished = {
        "running": "the run is under way or was killed; continue it with --resume",
        "stopped": "the run was stopped before its end; continue it with --resume",
        "incomplete": "some of its work failed; try that again with --resume",
    }
    if status == "finished":
        return Part("status", "pass", "finished")
    return Part("status", "unknown", unfinished.get(status, f"status {status!r} is not known"))


def _lines(look: Look) -> Part:
    """Each line is a record, its id is that of its content, and each cell has what it closed on."""
    wrong: list[str] = []
    waiting = 0
    for number, line in enumerate(look.lines, 1):
        try:
            record = record_from_json(line)
        except RunError as error:
            wrong.append(f"line {number}: {error}")
            continue
        content = {key: line[key] for key in line.keys() - {"id", *NO_METRIC}}
        if line.get("id") != (own := short_id(record.letter, content)):
            wrong.append(f"line {number} says it is {line.get('id')}, its content is {own}")
        if isinstance(record, Note) and record.name == CELL:
            if record.facts.get("records") != waiting:
                wrong.append(
                    f"line {number} closes on {record.facts.get('records')} records, not {waiting}"
                )
            waiting = 0
        else:
            waiting += 1
    return _part("records", wrong, "each has the id of its content")


def _files(run: RunFolder) -> Iterator[Part]:
    info, root = run.info, run.path.resolve()
    noted = {str(path): digest for path, digest in dict(info.get("artefacts", {})).items()}
    recorded = {
        str(file.path): file.digest for file in run.readable() if isinstance(file, Artefact)
    }
    named = {**noted, **recorded}
    inside = {path for path in named if (root / path).resolve().is_relative_to(root)}
    names = [f"{path} leads outside the run" for path in sorted(named.keys() - inside)]
    if "records" in info:  # a kill may leave the last files out of run.json
        names += [
            f"run.json and records.jsonl differ about {path}"
            for path in sorted(named)
            if noted.get(path) != recorded.get(path)
        ]
    yield _part("names", names, "run.json and records.jsonl name the same files")
    missing = [path for path in sorted(inside) if not (root / path).is_file()]
    yield _part("missing", missing, "every file that the run names is there")
    changed = [
        path
        for path in sorted(inside.difference(missing))
        if {sha256_file(root / path)} != {noted.get(path), recorded.get(path)} - {None}
    ]
    yield _part("changed", changed, f"{len(inside) - len(missing)} files have their digest")
    there = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if not path.is_dir() and not any(name[0] == "." for name in path.relative_to(root).parts)
    }
    left_half_done: Verdict = "fail" if info.get("status") == "finished" else "unknown"
    unexpected = sorted(there - named.keys() - WRITTEN_LAST)
    yield _part("unexpected", unexpected, "no file that the run does not name", left_half_done)


def _part(name: str, wrong: Sequence[str], fine: str, verdict: Verdict = "fail") -> Part:
    if not wrong:
        return Part(name, "pass", fine)
    rest = f"; and {len(wrong) - MANY} more" if len(wrong) > MANY else ""
    return Part(name, verdict, "; ".join(wrong[:MANY]) + rest, tuple(wrong))

"""Is a run folder as the run left it? Chain, end, status, records, files: what each one says.

What an owner of records.jsonl and run.json has written anew shows only by measuring again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from purpleteam.core.checks import CHECKS, Check, Outcome, Target
from purpleteam.core.digest import sha256_file, short_id
from purpleteam.core.errors import RunError
from purpleteam.core.ledger import Ledger, Look, end_differs
from purpleteam.core.records import NO_METRIC, Note, notes_of, record_from_json
from purpleteam.core.revision import Revision
from purpleteam.core.runfolder import CELL, RunFolder, artefacts_of
from purpleteam.core.signing import SIGNATURE

PROVES = (
    "A pass rules out accident, reordering and edits of one file. Whoever owns both "
    "records.jsonl and run.json can write them anew; only measuring again shows that."
)
WRITTEN_LAST = frozenset({"run.json", "records.jsonl", "report.html", "report.md"})
"""Files of a run that no record names: they hold the records, or are made of them."""
MANY = 5  # names or lines that are told; the rest are counted
UNFINISHED = {
    "running": "the run is under way or was killed; continue it with --resume",
    "stopped": "the run was stopped before its end; continue it with --resume",
    "incomplete": "some of its work failed; try that again with --resume",
}
LINEAGE = ("actor", "asked", "versions", "machine")

Verdict = Literal["pass", "fail", "unknown"]


@dataclass(frozen=True)
class Part:
    """What one look at the folder says; `unknown` where there is too little to tell."""

    name: str
    verdict: Verdict
    message: str
    found: tuple[str, ...] = ()  # each thing that is wrong; the message names the first few


@dataclass(frozen=True)
class Verification:
    """What was looked at, one part each."""

    parts: tuple[Part, ...]
    status: str  # what run.json says: running, stopped, incomplete or finished; empty: no run
    proves: str = PROVES

    @property
    def verdict(self) -> Verdict:
        """`fail` where any part does, else `unknown` where any is, else `pass`."""
        verdicts = {part.verdict for part in self.parts}
        return "fail" if "fail" in verdicts else "unknown" if "unknown" in verdicts else "pass"

    def of(self, verdict: Verdict) -> list[Part]:
        """Return the parts with that verdict."""
        return [part for part in self.parts if part.verdict == verdict]

    def to_json(self) -> dict[str, Any]:
        """Return the fields of `purple verify --json`."""
        parts = [asdict(part) for part in self.parts]
        return {
            "verdict": self.verdict,
            "status": self.status,
            "parts": parts,
            "proves": self.proves,
        }


def verify(path: Path) -> Verification:
    """Look at the records and at every file of a run."""
    known = verify_records(path)
    return Verification((*known.parts, *_files(RunFolder.open(path))), known.status)


def verify_records(path: Path) -> Verification:
    """Look at the records alone: their chain, their end, the run's status, what each line says."""
    info, look = RunFolder.open(path).info, Ledger(path / "records.jsonl").look()
    status, count = str(info.get("status")), len(look.lines)
    broken = [problem.rsplit("/", 1)[-1] for problem in (*look.damage, *look.torn)]
    chain = part_of("chain", broken, f"{count} lines, each follows from the one before")
    if not look.lines and not broken:
        chain = Part("chain", "fail", "records.jsonl holds no record")
    end = Part("end", "pass", f"{count} lines, {look.chain[:19]}")
    if differs := end_differs(info.get("records"), look.head):
        end = Part("end", "fail", differs)
    elif "records" not in info:
        why = "a run that has not ended names no end of its records"
        if status != "running":
            older = "it is older than that entry, or the entry was taken out"
            lost = "lines that are missing at the end would not show"
            why = f"run.json names no end of the records: {older}; {lost}"
        end = Part("end", "unknown", why)
    why = UNFINISHED.get(status, f"status {status!r} is not known")
    ended = Part("status", "unknown", why)
    if status == "finished":
        ended = Part("status", "pass", status)
    lines = part_of("records", list(_misread(look)), "each has the id of its content")
    return Verification((chain, end, ended, lines), status)


def _misread(look: Look) -> Iterator[str]:
    """Yield the lines that are no records, whose id is not theirs, or that close on too few."""
    waiting = 0
    for number, line in enumerate(look.lines, 1):
        try:
            record = record_from_json(line)
        except RunError as error:
            yield f"line {number}: {error}"
            continue
        content = {key: line[key] for key in line.keys() - {"id", *NO_METRIC}}
        if line.get("id") != (own := short_id(record.letter, content)):
            yield f"line {number} says it is {line.get('id')}, its content is {own}"
        waiting += 1
        if isinstance(record, Note) and record.name == CELL:
            if (closes := record.facts.get("records")) != waiting - 1:
                yield f"line {number} closes on {closes} records, not {waiting - 1}"
            waiting = 0


def _files(run: RunFolder) -> Iterator[Part]:
    info, root = run.info, run.path.resolve()
    noted = {str(path): digest for path, digest in dict(info.get("artefacts", {})).items()}
    recorded = {str(path): digest for path, digest in artefacts_of(run.readable()).items()}
    named = {**noted, **recorded}
    inside = {path for path in named if (root / path).resolve().is_relative_to(root)}
    names = [f"{path} leads outside the run" for path in sorted(named.keys() - inside)]
    if "records" in info:  # a kill may leave the last files out of run.json
        differ = [path for path in sorted(named) if noted.get(path) != recorded.get(path)]
        names += [f"run.json and records.jsonl differ about {path}" for path in differ]
    yield part_of("names", names, "run.json and records.jsonl name the same files")
    missing = [path for path in sorted(inside) if not (root / path).is_file()]
    yield part_of("missing", missing, "every file that the run names is there")
    changed = [
        path
        for path in sorted(inside.difference(missing))
        if {sha256_file(root / path)} != {noted.get(path), recorded.get(path)} - {None}
    ]
    yield part_of("changed", changed, f"{len(inside) - len(missing)} files have their digest")
    there = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if not path.is_dir() and not any(name[0] == "." for name in path.relative_to(root).parts)
        if path.suffix != SIGNATURE  # what it is of, `core.provenance` says
    }
    left_half_done: Verdict = "fail" if info.get("status") == "finished" else "unknown"
    unexpected = sorted(there - named.keys() - WRITTEN_LAST)
    yield part_of("unexpected", unexpected, "no file that the run does not name", left_half_done)


def part_of(name: str, wrong: Sequence[str], fine: str, verdict: Verdict = "fail") -> Part:
    """Return a part that passes where nothing is wrong, and else names the first few things."""
    if not wrong:
        return Part(name, "pass", fine)
    rest = f"; and {len(wrong) - MANY} more" if len(wrong) > MANY else ""
    return Part(name, verdict, "; ".join(wrong[:MANY]) + rest, tuple(wrong))


@CHECKS.register("run.ledger")
class RunLedger(Check):
    """The hash chain of records.jsonl verifies, and ends where a finished run says it ended."""

    proves = (
        "No record was lost, moved or damaged by accident: the hash chain verifies and ends where "
        "run.json says; without a key it shows nothing of someone who wrote both files anew."
    )
    needs = ("run",)

    def examine(self, target: Target) -> Outcome:
        try:
            verification = verify_records(target.run or Path())
        except RunError as error:
            return Outcome(passed=False, message=str(error))
        wrong, unknown = verification.of("fail"), verification.of("unknown")
        if not wrong and unknown and verification.status == "finished":
            raise RunError(unknown[0].message)
        message, measured = (wrong[0].message, "not whole") if wrong else ("", "whole")
        return Outcome(passed=not wrong, measured=measured, threshold="whole", message=message)

    def bad_example(self, folder: Path) -> Target:
        run = RunFolder.create(folder / "run", {"dataset": "digits"})
        run.cell("data", {}, lambda: [Note(name="one", facts={"value": 1})])
        path = run.path / "records.jsonl"
        path.write_text(path.read_text("utf-8").replace('"value":1', '"value":2'), "utf-8")
        return Target(run=run.path)


@CHECKS.register("run.lineage")
class RunLineage(Check):
    """run.json names the actor, the request with its seed, versions and machine."""

    proves = (
        "The run says who asked for what, with which seed, versions, machine and data, "
        "in files that its owner can rewrite."
    )
    needs = ("run",)

    def examine(self, target: Target) -> Outcome:
        run = RunFolder.open(target.run or Path())
        missing = [key for key in LINEAGE if not run.info.get(key)]
        missing += [key for key in ("seed", "dataset") if key not in run.info["asked"]]
        if not notes_of(run.records(), "dataset"):
            missing.append("data digest")
        return Outcome(
            passed=not missing,
            measured=sorted(set(LINEAGE) - set(missing)),
            threshold=sorted(LINEAGE),
            message=f"missing: {', '.join(missing)}" if missing else "",
        )

    def bad_example(self, folder: Path) -> Target:
        return Target(run=RunFolder.create(folder / "run", {"dataset": "digits"}).path)


@CHECKS.register("run.code")
class RunCode(Check):
    """The run names the commit or wheel whose code wrote it, and no file of that was changed."""

    needs = ("run",)

    def examine(self, target: Target) -> Outcome:
        ran = Revision.all_of(RunFolder.open(target.run or Path()).info)
        wrong = [f"{one}: {', '.join(one.changed)}" for one in ran if not one.known]
        return Outcome(
            passed=bool(ran) and not wrong,
            measured=[str(one) for one in ran],
            threshold="a commit or a wheel, unchanged",
            message="; ".join(wrong)[:300] if ran else "run.json does not say which code wrote it",
            inputs={f"code {number}": one.digest for number, one in enumerate(ran, 1)},
        )

    def bad_example(self, folder: Path) -> Target:
        """A run by a package that is a commit's but for a line."""
        run = RunFolder.create(folder / "run", {"dataset": "digits"})
        run.ran_by({"digest": "sha256:", "commit": "0" * 40, "changed": ["a.py"], "differ": 1})
        return Target(run=run.path)

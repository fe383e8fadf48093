"""Re-run the cells behind some records, in a copy of the run, and say whether they agree."""

from __future__ import annotations

import inspect
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from purpleteam.core.config import build
from purpleteam.core.errors import PurpleError, RunError, UsageError, unknown
from purpleteam.core.ledger import Ledger
from purpleteam.core.plugins import check_trusted, load_plugin
from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.records import Artefact, Measurement, Note, Record, record_from_json
from purpleteam.core.runfolder import RunFolder
from purpleteam.pipeline.config import RunConfig
from purpleteam.pipeline.run import prepare, reason_of, run_stages
from purpleteam.verbs import VERBS
from purpleteam.verbs.verb import ASKED

UNRECORDED = "the run has no such work"


@dataclass(frozen=True)
class Replay:
    """A record as it was, as it came out again, and whether the two agree."""

    record: str
    agrees: bool | None
    """None where it cannot be made again: `reason` says why."""
    before: Mapping[str, Any]
    after: Mapping[str, Any] | None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the fields of `purple replay --json`."""
        return {
            "record": self.record,
            "agrees": self.agrees,
            "before": dict(self.before),
            "after": None if self.after is None else dict(self.after),
        } | ({"reason": self.reason} if self.reason else {})


def replay(path: Path, record_id: str, *, progress: Progress = SILENT) -> Replay:
    """Do the work behind one record again; the run folder itself is not touched.

    Raises:
        UsageError: the run has no such record.
        RunError: it cannot be measured again; the message says why.
    """
    run = RunFolder.open(path)
    before = _recorded(run, record_id)
    made = _made_again(run, {before.id}, progress)[before.id]
    if isinstance(made, str):
        raise RunError(f"{record_id} cannot be measured again: {made}")
    return _compared(before, made, record_id)


def replay_some(
    path: Path, count: int, *, seed: int = 0, progress: Progress = SILENT
) -> list[Replay]:
    """Measure some of the numbers of a run again; the run folder itself is not touched.

    Args:
        path: the run folder; its hash chain must be whole.
        count: how many numbers; all that there are where there are fewer.
        seed: the choice is a pure function of it and of the records.
        progress: where to report.
    """
    run = RunFolder.open(path)
    numbers = {one.id: one for one in run.records() if isinstance(one, Measurement)}
    rng = np.random.default_rng(seed)
    chosen = [list(numbers)[i] for i in rng.permutation(len(numbers))[:count]]
    made: dict[str, Sequence[Record] | str]
    try:
        made = _made_again(run, set(chosen), progress)
    except PurpleError as error:  # the dataset is gone, say
        made = dict.fromkeys(chosen, str(error))
    return [_compared(numbers[one], made[one]) for one in chosen]


def _made_again(
    run: RunFolder, wanted: set[str], progress: Progress
) -> dict[str, Sequence[Record] | str]:
    """Return for each wanted record what its work makes now, or why it cannot be made again."""
    made: dict[str, Sequence[Record] | str] = {}
    for note in run.records():
        if isinstance(note, Note) and note.name == ASKED:
            here = wanted.intersection(note.facts["records"]) - made.keys()
            if here:
                made |= dict.fromkeys(here, _called_again(note.facts, progress))
    rest = wanted - made.keys()
    if rest and "verb" in run.info["asked"]:
        made |= dict.fromkeys(rest, UNRECORDED)
    elif rest:
        with _copy(run.path) as copy:
            made |= _Again(copy, rest, progress).made
    return made


def _called_again(asked: Mapping[str, Any], progress: Progress) -> Sequence[Record] | str:
    """Call a verb once more as it was called, with its files in a folder that is thrown away."""
    given = [key for key, value in asked["options"].items() if isinstance(value, Mapping)]
    if given:
        return f"{' and '.join(given)} came through Python: call {asked['verb']} again there"
    for name in asked.get("plugins", ()):
        check_trusted(name)
        load_plugin(name)
    verb = VERBS[asked["verb"]]
    takes = inspect.signature(verb.call).parameters
    with tempfile.TemporaryDirectory(prefix="purple-replay-") as folder:
        options = {key: value for key, value in asked["options"].items() if key in takes}
        options |= {key: None for key in ("picture", "strip") if key in takes}
        options |= {"out": Path(folder) / "out"} if "out" in takes else {}
        options |= {"progress": progress} if "progress" in takes else {}
        try:
            return verb.call(**options, run=Path(folder) / "run").records
        except (Exception, SystemExit) as error:
            return reason_of(error)


def _compared(before: Record, again: Sequence[Record] | str, asked_as: str | None = None) -> Replay:
    if isinstance(again, str):
        return Replay(before.id, None, before.metric(), None, reason=again)
    same = [one for one in again if one.id == before.id]
    after = same[0] if same else _counterpart(before, again)
    return Replay(
        record=asked_as or before.id,
        agrees=bool(same),
        before=before.metric(),
        after=after.metric() if after else None,
    )


@contextmanager
def _copy(path: Path) -> Iterator[Path]:
    """Yield a copy of a run that goes on, whatever the original says of its end."""
    with tempfile.TemporaryDirectory(prefix="purple-replay-") as folder:
        copy = Path(folder) / path.name
        shutil.copytree(path, copy)
        info = {key: value for key, value in RunFolder.open(path).info.items() if key != "records"}
        (copy / "run.json").write_text(json.dumps(info), encoding="utf-8")
        yield copy


def _recorded(run: RunFolder, record_id: str) -> Record:
    """Return the record by the id of its content, or by the one that its line claims to have."""
    found = {record.id: record for record in run.records()}
    for line in Ledger(run.path / "records.jsonl").read():
        record = record_from_json(line)
        if line.get("id") == record_id and record.id in found:
            return record
    if record_id not in found:
        near = [one for one in found if one.startswith(record_id[:4])] or list(found)[:8]
        raise UsageError(f"{unknown('record', record_id, near)} ...")
    return found[record_id]


class _Done(BaseException):
    """Every wanted cell was done again; no failure of a piece of work, which would be told."""


class _Again:
    """The wanted records, made again while the stages are gone through."""

    def __init__(self, copy: Path, wanted: set[str], progress: Progress) -> None:
        self.made: dict[str, Sequence[Record] | str] = {}
        """For each wanted record, what its cell makes now, or why it cannot be made."""
        config = build(RunConfig, RunFolder.open(copy).info["asked"], f"{copy.name}/run.json")
        for name in config.plugins:
            check_trusted(name)
            load_plugin(name)
        run = prepare(config, copy, resume=True, progress=progress)
        run.folder, run.processes = _ReplayFolder(copy, wanted, self.made), 1
        reasons: list[str] = []
        with suppress(_Done):
            run_stages(run, {}, lambda failure, _: reasons.append(failure.reason))
        reasons = [one for one in reasons if one != UNRECORDED]
        why = reasons[0] if reasons else "no stage of this version makes this record"
        self.made |= dict.fromkeys(wanted - self.made.keys(), why)


class _ReplayFolder(RunFolder):
    """A run folder whose cells come from the file, but for those that hold a wanted record."""

    def __init__(
        self, path: Path, wanted: set[str], made: dict[str, Sequence[Record] | str]
    ) -> None:
        super().__init__(path)
        self._wanted = wanted
        self._made = made

    def cell(
        self,
        stage: str,
        depends_on: Mapping[str, Any],
        work: Callable[[], Sequence[Record]],
    ) -> list[Record]:
        """Return the finished cell, done again where it is wanted; stop after the last of those."""
        if not self.knows(stage, depends_on):
            raise RunError(UNRECORDED)  # what the run did not do is not wanted either
        records = super().cell(stage, depends_on, work)
        here = self._wanted.intersection(one.id for one in records) - self._made.keys()
        if here:
            self._made.update(dict.fromkeys(here, self._again(records, work)))
        if self._made.keys() >= self._wanted:
            raise _Done
        return records

    def _again(
        self, records: Sequence[Record], work: Callable[[], Sequence[Record]]
    ) -> list[Record] | str:
        files = [self.path / one.path for one in records if isinstance(one, Artefact)]
        kept = {file: file.read_bytes() for file in files}
        try:
            return list(work())
        except (Exception, SystemExit) as error:
            return reason_of(error)
        finally:
            for file, content in kept.items():  # later cells stand on what was recorded
                file.write_bytes(content)


def _counterpart(before: Record, again: Sequence[Record]) -> Record | None:
    """Return the record that is about the same thing, for showing the other value."""

    def about(record: Record) -> dict[str, Any]:
        facts = record.metric()
        return {key: facts.get(key) for key in ("kind", "name", "check", "threat", "path", "how")}

    return next((one for one in again if about(one) == about(before)), None)

"""Re-run the cells behind some records, in a copy of the run, and say whether they agree."""

import inspect
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from purpleteam.core.config import build
from purpleteam.core.errors import PurpleError, RunError, UsageError, failure_of, unknown
from purpleteam.core.ledger import Ledger
from purpleteam.core.plugins import check_trusted, load_plugin
from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.records import Artefact, Measurement, Record, notes_of, record_from_json
from purpleteam.core.runfolder import RunFolder
from purpleteam.core.scratch import scratch
from purpleteam.pipeline.config import RunConfig
from purpleteam.pipeline.run import STAGES, do_stage, prepare
from purpleteam.verbs import VERBS
from purpleteam.verbs.verb import ASKED

UNRECORDED = "the run has no such work"
Made = dict[str, Sequence[Record] | str]
"""By record what its work makes now, or why it cannot be made again."""


@dataclass(frozen=True)
class Replay:
    """A record as it was, as it came out again, and whether the two agree."""

    record: str
    agrees: bool | None  # none where it cannot be made again: `reason` says why
    before: Mapping[str, Any]
    after: Mapping[str, Any] | None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "reason" or value}


def replay(path: Path, record_id: str, *, progress: Progress = SILENT) -> Replay:
    """Do the work behind one record again; the run folder itself is not touched."""
    run = RunFolder.open(path)
    by_id = {record.id: record for record in run.records()}
    for line in Ledger(run.path / "records.jsonl").read():  # or by the id that its line claims
        if line.get("id") == record_id and (content := record_from_json(line)).id in by_id:
            by_id[record_id] = by_id[content.id]
    if record_id not in by_id:
        near = [record for record in by_id if record.startswith(record_id[:4])] or list(by_id)[:8]
        raise UsageError(f"{unknown('record', record_id, near)} ...")
    before = by_id[record_id]
    made = _made_again(run, {before.id}, progress)[before.id]
    if isinstance(made, str):
        raise RunError(f"{record_id} cannot be measured again: {made}")
    return replace(_compared(before, made), record=record_id)


def replay_some(
    path: Path, count: int, *, seed: int = 0, progress: Progress = SILENT
) -> list[Replay]:
    """Measure some of the numbers of a run again; the run folder itself is not touched."""
    run = RunFolder.open(path)
    numbers = {record.id: record for record in run.records() if isinstance(record, Measurement)}
    rng = np.random.default_rng(seed)
    chosen = [list(numbers)[i] for i in rng.permutation(len(numbers))[:count]]
    try:
        made = _made_again(run, set(chosen), progress)
    except PurpleError as error:  # the dataset is gone, say
        made = dict.fromkeys(chosen, str(error))
    return [_compared(numbers[record], made[record]) for record in chosen]


def _made_again(run: RunFolder, wanted: set[str], progress: Progress) -> Made:
    """Return for each wanted record what its work makes now, or why it cannot be made again."""
    made: Made = {}
    for note in notes_of(run.records(), ASKED):
        here = wanted.intersection(note.facts["records"]) - made.keys()
        made |= dict.fromkeys(here, _called_again(run, note.facts, progress) if here else "")
    rest = wanted - made.keys()
    if rest and "verb" in run.info["asked"]:
        made |= dict.fromkeys(rest, UNRECORDED)
    elif rest:
        made |= _staged_again(run, rest, progress)
    return made


def _called_again(
    run: RunFolder, asked: Mapping[str, Any], progress: Progress
) -> Sequence[Record] | str:
    """Call a verb once more as it was called, with its files in a folder that is thrown away."""
    given = [key for key, value in asked["options"].items() if isinstance(value, Mapping)]
    if given:
        return f"{' and '.join(given)} came through Python: call {asked['verb']} again there"
    _load(asked.get("plugins", ()))
    verb = VERBS[asked["verb"]]
    takes = inspect.signature(verb.call).parameters
    with tempfile.TemporaryDirectory(prefix="purple-replay-", dir=scratch()) as folder:
        out = Path(folder) / asked.get("makes", "out")  # whose name is the model's
        own = {"picture": None, "strip": None, "out": out, "progress": progress}
        own |= {name: str(run.path / asked["options"][name]) for name in asked.get("uses", ())}
        options = {key: value for key, value in (asked["options"] | own).items() if key in takes}
        try:
            return verb.call(**options, run=Path(folder) / "run").records
        except (Exception, SystemExit) as error:
            return failure_of(error)


def _staged_again(run: RunFolder, wanted: set[str], progress: Progress) -> Made:
    """Go through the stages in a copy of the run, and do the cells of the wanted records again."""
    made: Made = {}
    reasons: list[str] = []
    with tempfile.TemporaryDirectory(prefix="purple-replay-", dir=scratch()) as folder:
        copy = Path(folder) / run.path.name
        shutil.copytree(run.path, copy)
        info = {key: value for key, value in run.info.items() if key != "records"}
        (copy / "run.json").write_text(json.dumps(info), encoding="utf-8")  # whatever its end was
        config = build(RunConfig, info["asked"], f"{copy.name}/run.json")
        _load(config.plugins)
        state = prepare(config, copy, resume=True, progress=progress)
        state.folder = _ReplayFolder(copy, wanted, made)
        with suppress(_Done):
            for stage in STAGES:
                do_stage(state, stage, lambda failure, _: reasons.append(failure.reason))
    reasons = [reason for reason in reasons if reason != UNRECORDED]
    why = reasons[0] if reasons else "no stage of this version makes this record"
    return dict.fromkeys(wanted, why) | made


def _load(plugins: Sequence[str]) -> None:
    for name in plugins:
        check_trusted(name)
        load_plugin(name)


def _compared(before: Record, again: Sequence[Record] | str) -> Replay:
    """Compare a record with the same one now, or with the one about the same thing."""
    if isinstance(again, str):
        return Replay(before.id, None, before.metric(), None, reason=again)

    def about(record: Record) -> dict[str, Any]:
        facts = record.metric()
        return {key: facts.get(key) for key in ("kind", "name", "check", "threat", "path", "how")}

    same = [record for record in again if record.id == before.id]
    near = same or [record for record in again if about(record) == about(before)]
    return Replay(before.id, bool(same), before.metric(), near[0].metric() if near else None)


class _Done(BaseException):
    """Every wanted cell was done again; no failure of a piece of work, which would be told."""


class _ReplayFolder(RunFolder):
    """A run folder whose cells come from the file, but for those that hold a wanted record."""

    def __init__(self, path: Path, wanted: set[str], made: Made) -> None:
        super().__init__(path)
        self._wanted, self._made = wanted, made

    def cell(
        self, stage: str, depends_on: Mapping[str, Any], work: Callable[[], Sequence[Record]]
    ) -> list[Record]:
        """Return the finished cell, done again where it is wanted; stop after the last of those."""
        if not self.knows(stage, depends_on):
            raise RunError(UNRECORDED)  # what the run did not do is not wanted either
        records = super().cell(stage, depends_on, work)
        if here := self._wanted.intersection(record.id for record in records) - self._made.keys():
            files = [self.path / record.path for record in records if isinstance(record, Artefact)]
            kept = {file: file.read_bytes() for file in files}
            again: Sequence[Record] | str
            try:
                again = list(work())
            except (Exception, SystemExit) as error:
                again = failure_of(error)
            finally:
                for file, content in kept.items():  # later cells stand on what was recorded
                    file.write_bytes(content)
            self._made |= dict.fromkeys(here, again)
        if self._made.keys() >= self._wanted:
            raise _Done
        return records

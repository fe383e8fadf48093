"""Re-run the cell behind one record, in a copy of the run, and say whether it agrees."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from purpleteam.core.config import build
from purpleteam.core.errors import RunError, UsageError, unknown
from purpleteam.core.ledger import Ledger
from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.records import Record, record_from_json
from purpleteam.core.runfolder import RunFolder
from purpleteam.pipeline.config import RunConfig
from purpleteam.pipeline.run import prepare, run_stages

__all__ = ["Replay", "replay"]


@dataclass(frozen=True)
class Replay:
    """A record as it was, as it came out again, and whether the two agree."""

    record: str
    agrees: bool
    before: Mapping[str, Any]
    after: Mapping[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        """Return the fields of `purple replay --json`."""
        return {
            "record": self.record,
            "agrees": self.agrees,
            "before": dict(self.before),
            "after": None if self.after is None else dict(self.after),
        }


def replay(path: Path, record_id: str, *, progress: Progress = SILENT) -> Replay:
    """Do the work behind one record again; the run folder itself is not touched.

    Raises:
        UsageError: the run has no such record.
    """
    run = RunFolder.open(path)
    before = _recorded(run, record_id)
    with tempfile.TemporaryDirectory(prefix="purple-replay-") as folder:
        copy = Path(folder) / path.name
        shutil.copytree(path, copy)
        again = _again(copy, run.info["asked"], before.id, progress)
    same = [one for one in again if one.id == before.id]
    after = same[0] if same else _counterpart(before, again)
    return Replay(
        record=record_id,
        agrees=bool(same),
        before=before.metric(),
        after=after.metric() if after else None,
    )


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


class _Done(Exception):
    """The wanted cell was done again."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records


class _ReplayFolder(RunFolder):
    """A run folder whose cells come from the file, but for the one that holds the record."""

    wanted = ""

    def cell(
        self,
        stage: str,
        depends_on: Mapping[str, Any],
        work: Callable[[], Sequence[Record]],
    ) -> list[Record]:
        """Return the finished cell, or do the wanted one again and stop there."""
        records = super().cell(stage, depends_on, work)
        if any(record.id == self.wanted for record in records):
            raise _Done(list(work()))
        return records


def _again(
    copy: Path, asked: Mapping[str, Any], record_id: str, progress: Progress
) -> Sequence[Record]:
    config = build(RunConfig, asked, f"{copy.name}/run.json")
    work = prepare(config, copy, resume=True, progress=progress)
    folder = _ReplayFolder(copy)
    folder.wanted = record_id
    work.run, work.processes = folder, 1
    try:
        run_stages(work, {})
    except _Done as done:
        return done.records
    raise RunError(f"no stage of this version made record {record_id}")


def _counterpart(before: Record, again: Sequence[Record]) -> Record | None:
    """Return the record that is about the same thing, for showing the other value."""

    def about(record: Record) -> dict[str, Any]:
        facts = record.metric()
        return {key: facts.get(key) for key in ("kind", "name", "check", "threat", "path", "how")}

    return next((one for one in again if about(one) == about(before)), None)

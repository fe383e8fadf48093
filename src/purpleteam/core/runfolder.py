"""The run folder: what was asked (run.json), what was found (records.jsonl), what was made.

Work is done in cells, named by the content of what they depend on, and written whole or not at all:
`resume` does what is missing. Another process may leave drafts of cells, which the run takes over.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from purpleteam.core.digest import canonical_json, sha256_bytes, sha256_file
from purpleteam.core.errors import NeedsFailed, RunError
from purpleteam.core.ledger import Ledger, end_differs
from purpleteam.core.machine import actor, machine, versions
from purpleteam.core.records import Artefact, Failure, Note, Record, notes_of, record_from_json
from purpleteam.core.revision import revision
from purpleteam.core.schema import SCHEMA, migrate

FOLDERS = ("outcomes", "models", "images", "figures", "exports")
CELL = "cell"
DRAFTS, CLAIM, FAILED = ".drafts", ".claim", ".failed"
AT_ONCE = 500  # cells that are written in one go


class RunFolder:
    """One run on disk. `create` and `resume` open it for writing, `open` for reading."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ledger = Ledger(path / "records.jsonl")
        self._done: dict[str, list[Record]] = {}
        self._failed: dict[str, str] = {}

    @classmethod
    def create(cls, path: Path, asked: Mapping[str, Any]) -> Self:
        """Start a run in a new or empty folder; `asked` is the resolved request."""
        if any((path / name).exists() for name in ("run.json", "records.jsonl")):
            remedy = "continue it with --resume, or name another folder with --out"
            raise RunError(f"{str(path)!r} already holds a run; {remedy}")
        for folder in FOLDERS:
            (path / folder).mkdir(parents=True, exist_ok=True)
        run = cls(path)
        by = {"actor": actor(), "versions": versions(), "machine": machine()}
        start = {"asked": dict(asked), "status": "running", "artefacts": {}}
        run._write({"schema": SCHEMA, **start, **by, "code": [revision()]})
        return run

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an existing run for reading."""
        if not (path / "run.json").is_file():
            raise RunError(f"{str(path)!r} is not a run folder: it has no run.json")
        run = cls(path)
        _ = run.info
        return run

    @classmethod
    def reopen(cls, path: Path) -> Self:
        """Open a run to add records to it; one that is not as it was left is refused."""
        run = cls.open(path)
        if differs := end_differs(run.info.get("records"), run._ledger.head()):
            remedy = "look with purple verify, or name another folder"
            raise RunError(f"{str(path)!r} is not as it was left: {differs}; {remedy}")
        return run

    @classmethod
    def resume(cls, path: Path, asked: Mapping[str, Any]) -> Self:
        """Continue a run that asked for the same; half-written cells and failures are dropped."""
        before, now = cls.open(path).info["asked"], json.loads(canonical_json(asked))
        if before != now:
            keys = sorted(before.keys() | now.keys())
            changed = [key for key in keys if before.get(key, ...) != now.get(key, ...)]
            asked_else = f"another request (differs in: {', '.join(changed)})"
            raise RunError(f"{str(path)!r} was started with {asked_else}; choose another --out")
        run = cls.reopen(path)
        if lines := run._ledger.read():
            closing = [(line.get("kind"), line.get("name")) == (Note.kind, CELL) for line in lines]
            run._ledger.keep(max((i for i, ends in enumerate(closing, 1) if ends), default=0))
        for key, records in list(run._cells_done().items()):
            if any(isinstance(record, Failure) for record in records):
                run._keep(key, "resume", [])  # an empty cell stands for it: it is tried again
        run.ran_by(revision())
        info = run.info
        info["artefacts"] |= artefacts_of(run.records())
        info.pop("records", None)
        run._write({**info, "status": "running"})
        return run

    @property
    def info(self) -> dict[str, Any]:
        """The content of run.json."""
        path = self.path / "run.json"
        try:
            info: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"{str(path)!r} cannot be read: {error}") from None
        if not isinstance(info, dict) or not isinstance(info.get("asked"), dict):
            raise RunError(f"{str(path)!r} does not say what was asked")
        schema = info.get("schema", 0)
        if type(schema) is not int or not 0 <= schema <= SCHEMA:
            remedy = "install the version of Purpleteam that wrote it"
            reads = f"this version reads 0 to {SCHEMA}; {remedy}"
            raise RunError(f"{str(path)!r} has schema {schema!r}, {reads}")
        return info

    def ran_by(self, code: Mapping[str, Any]) -> None:
        """Note which code writes, unless it is noted: a `core.revision.Revision` as JSON."""
        info, told = self.info, json.loads(canonical_json(code))
        if told not in info.setdefault("code", []):
            self._write({**info, "code": [*info["code"], told]})

    def records(self) -> list[Record]:
        """Return every record, the chain verified, without the cells' closing lines.

        Of a cell that was done again the newest records stand, in the place of the first.
        """
        return migrate(_newest(map(record_from_json, self._ledger.read())), self.info)

    def readable(self) -> list[Record]:
        """Return the records of a run that may be damaged: all that can still be read."""
        look, records = self._ledger.look(), list[Record]()
        for line in look.lines:
            with suppress(RunError):
                records.append(record_from_json(line))
        if not records and (problems := look.damage + look.torn):
            raise RunError(problems[0])
        return migrate(_newest(records), self.info)

    def metrics(self) -> str:
        """Return the records less cost and time, one canonical line each: what must not vary."""
        records = _newest(map(record_from_json, self._ledger.read()))
        return "".join(canonical_json(record.metric()) + "\n" for record in records)

    def cell(
        self, stage: str, depends_on: Mapping[str, Any], work: Callable[[], Sequence[Record]]
    ) -> list[Record]:
        """Do `work` once and return its records; what failed is not tried again by the same run."""
        key = key_of(stage, depends_on)
        if (finished := self._finished(key)) is not None:
            return finished
        if key in self._failed:
            raise NeedsFailed(self._failed[key])
        made = self._drafted(key)
        try:
            made = list(work()) if made is None else made
        except Exception:
            self._failed[key] = str(depends_on.get("what", stage))
            raise
        return self._keep(key, stage, made)

    def take_over(self, stage: str, keys: Iterable[str]) -> dict[str, list[Record]]:
        """Return the records of cells by key, those that were left as drafts now written here.

        A cell that was never done is left out.
        """
        taken: dict[str, list[Record]] = {}
        fresh: dict[str, list[Record]] = {}
        for key in keys:
            made = self._finished(key)
            if made is None and (made := self._drafted(key)) is not None:
                fresh[key] = made
            if made is not None:
                taken[key] = made
            if len(fresh) >= AT_ONCE:
                self._keep_all(fresh, stage)
                fresh = {}
        self._keep_all(fresh, stage)
        return taken

    def made_again(self, stage: str, what: str, made: Sequence[Record]) -> None:
        """Put records in the place of those that were made of the same thing before."""
        self._keep(key_of(stage, {"what": what}), stage, list(made))

    def ask(self, asked: Mapping[str, Any]) -> None:
        """Note that the run is now asked for this: more cells of a sweep, say."""
        self._write({**self.info, "asked": dict(asked)})

    def failed(self, failure: Failure) -> None:
        """Record that a piece of work failed, until the run is resumed."""
        self._keep(key_of(failure.stage, {"failure": failure.what}), failure.stage, [failure])

    def knows(self, stage: str, depends_on: Mapping[str, Any]) -> bool:
        """Say whether the cell was done once, whatever became of its files."""
        return key_of(stage, depends_on) in self._cells_done()

    def artefact(self, path: Path, made_by: str) -> Artefact:
        """Return the record of a file inside the run folder."""
        inside = path.relative_to(self.path).as_posix()
        return Artefact(path=inside, digest=sha256_file(path), made_by=made_by)

    def finish(self, status: str, **facts: Any) -> None:
        """Write how the run ended, and the head of its records, by which a missing end shows."""
        if status == "finished":
            shutil.rmtree(self.path / DRAFTS, ignore_errors=True)
        self._write({**self.info, "status": status, **facts, "records": self._ledger.head()})

    def _keep(self, key: str, stage: str, made: list[Record]) -> list[Record]:
        """Write the records of a cell with its closing line, and return them."""
        self._keep_all({key: made}, stage)
        return made

    def _keep_all(self, cells: Mapping[str, list[Record]], stage: str) -> None:
        """Write the records of cells, each with its closing line, and forget their drafts."""
        lines: list[Record] = []
        for key, made in cells.items():
            if notes_of(made, CELL):
                raise ValueError(f"a note cannot be named {CELL!r}: that closes a cell")
            facts = {"cell": key, "stage": stage, "records": len(made)}
            lines += [*made, Note(name=CELL, facts=facts)]
        if not lines:
            return
        self._ledger.append(record.to_json() for record in lines)
        info = self.info
        if (artefacts := artefacts_of(lines)) or "records" in info:
            info.pop("records", None)  # of an end that was not the end
            info["artefacts"] |= artefacts
            self._write(info)
        self._cells_done().update(cells)
        for key in cells:
            for ending in (".json", CLAIM, FAILED):  # of whoever did it ahead
                self._draft(key).with_suffix(ending).unlink(missing_ok=True)

    def _finished(self, key: str) -> list[Record] | None:
        records = self._cells_done().get(key)
        return records if records is not None and self._whole(records) else None

    def _cells_done(self) -> dict[str, list[Record]]:
        if not self._done:
            records = map(record_from_json, self._ledger.read())
            self._done = {key: cell for key, cell in _cells(records) if key}
        return self._done

    def _draft(self, key: str) -> Path:
        return self.path / DRAFTS / f"{key.partition(':')[2]}.json"

    def _drafted(self, key: str) -> list[Record] | None:
        """Return the records that another process left for a cell, if their files are here."""
        try:
            lines = json.loads(self._draft(key).read_text(encoding="utf-8"))
            records = [record_from_json(line) for line in lines]
        except (OSError, ValueError, RunError):
            return None
        return records if self._whole(records) else None

    def _whole(self, records: Sequence[Record]) -> bool:
        return all(
            (self.path / path).is_file() and sha256_file(self.path / path) == digest
            for path, digest in artefacts_of(records).items()
        )

    def _write(self, info: Mapping[str, Any]) -> None:
        target = self.path / "run.json"
        fresh = target.with_suffix(".tmp")
        fresh.write_text(json.dumps(info, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        fresh.replace(target)


@dataclass
class Claimed(BaseException):
    """Another worker is at the cell; no error, so nothing that handles errors handles it."""

    key: str


class Drafts(RunFolder):
    """A run that another process writes: cells are claimed by a file each, and left as drafts.

    A cell that fails leaves no draft: the run meets it itself, fails and says so.
    """

    def cell(
        self, stage: str, depends_on: Mapping[str, Any], work: Callable[[], Sequence[Record]]
    ) -> list[Record]:
        """Return the finished or drafted cell, or do it where nobody is at it."""
        key = key_of(stage, depends_on)
        if (made := self._finished(key)) is not None or (made := self._drafted(key)) is not None:
            return made
        claim = self._draft(key).with_suffix(CLAIM)
        if claim.with_suffix(FAILED).exists():
            raise NeedsFailed(str(depends_on.get("what", stage)))
        claim.parent.mkdir(exist_ok=True)
        try:
            os.close(os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            if (made := self._drafted(key)) is not None:  # it has just ended
                return made
            raise Claimed(key) from None
        try:
            return self._keep(key, stage, list(work()))
        except Claimed:  # it needs what another is at: somebody comes back to it
            with suppress(OSError):
                claim.unlink()
            raise
        except (Exception, SystemExit):  # a net of the user's may exit
            claim.with_suffix(FAILED).touch()
            raise

    def has(self, key: str) -> bool:
        """Say whether a cell is done or drafted."""
        return self._finished(key) is not None or self._drafted(key) is not None

    def leave(self, key: str, records: Sequence[Record]) -> None:
        """Leave what another process made of a cell as its draft."""
        self._keep(key, "", list(records))

    def taken(self, key: str) -> bool:
        """Say whether a worker is at the cell and has neither ended nor failed."""
        draft = self._draft(key)
        ended = draft.exists() or draft.with_suffix(FAILED).exists()
        return draft.with_suffix(CLAIM).exists() and not ended

    def forget_claims(self) -> None:
        """Remove what workers of a run that was killed left of their claims."""
        for path in (self.path / DRAFTS).glob("*"):
            if path.suffix in (CLAIM, FAILED):
                path.unlink()

    def _keep(self, key: str, stage: str, made: list[Record]) -> list[Record]:
        """Leave the records of a cell as a draft, and return them."""
        target = self._draft(key)
        target.parent.mkdir(exist_ok=True)
        fresh = target.with_suffix(f".{os.getpid()}.tmp")
        fresh.write_text(json.dumps([record.to_json() for record in made]), encoding="utf-8")
        fresh.replace(target)
        return made


def _cells(records: Iterable[Record]) -> Iterator[tuple[str, list[Record]]]:
    """Yield the key and records of each cell in order; a half-written last one has no key."""
    waiting: list[Record] = []
    for record in records:
        if isinstance(record, Note) and record.name == CELL:
            yield record.facts.get("cell", ""), waiting
            waiting = []
        else:
            waiting.append(record)
    if waiting:
        yield "", waiting


def _newest(records: Iterable[Record]) -> list[Record]:
    return [record for cell in dict(_cells(records)).values() for record in cell]


def key_of(stage: str, depends_on: Mapping[str, Any]) -> str:
    """Return the name of a cell: a digest of all that its result depends on."""
    return sha256_bytes(canonical_json({"stage": stage, **depends_on}).encode())


def artefacts_of(records: Iterable[Record]) -> dict[str, str]:
    """Return the digest of each file that records name, by its path."""
    return {record.path: record.digest for record in records if isinstance(record, Artefact)}

"""The run folder: what was asked (run.json), what was found (records.jsonl), what was made.

Work is done in cells, named by the content of what they depend on, and written whole or not at all:
`resume` does what is missing. Another process may leave drafts of cells, which the run takes over.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from purpleteam.core.cell_index import CellIndex
from purpleteam.core.digest import canonical_json, sha256_bytes, sha256_file
from purpleteam.core.errors import NeedsFailed, RunError, disk_is_full
from purpleteam.core.ledger import Ledger, end_differs
from purpleteam.core.machine import actor, machine, versions
from purpleteam.core.records import Artefact, Failure, Note, Record, record_from_json
from purpleteam.core.revision import revision
from purpleteam.core.schema import SCHEMA, migrate

FOLDERS = ("outcomes", "models", "images", "figures", "exports")
CELL = "cell"
DRAFTS = ".drafts"
ID = re.compile(rb'"id":"(\w-\w+)"')


class RunFolder:
    """One run on disk. `create` and `resume` open it for writing, `open` for reading."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ledger = Ledger(path / "records.jsonl")
        self._cells = CellIndex(self._ledger.path, _closes)
        self._failed: dict[str, str] = {}
        self.failed_before: Mapping[str, str] = {}
        """Why cells failed, by key, where another process tried: they are not tried again."""

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
        run._ledger.cut(run._cells_done().end)
        for key in list(run._cells_done().kinds[Failure.kind]):
            run._keep(key, "resume", [])  # an empty cell stands for it: it is tried again
        run.ran_by(revision())
        info = run.info
        for key in run._cells_done().kinds[Artefact.kind]:
            info["artefacts"] |= artefacts_of(run.recorded([key])[key])
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

    def some(self, wanted: Container[str], *, most: int) -> list[Record]:
        """Return the records with those ids, and the first `most` files and failures, unverified.

        One is in memory at a time: of very many records these are read in two passes.
        """
        index, found = CellIndex(self._ledger.path, _closes), list[dict[str, Any]]()
        index.look()
        for kind, keys in index.kinds.items():
            cells = index.several(list(keys)[:most]).values()
            found += [line for lines in cells for line in lines if line["kind"] == kind][:most]
        with self._ledger.path.open("rb") as file:
            for raw in file:
                if any(name.decode() in wanted for name in ID.findall(raw)):
                    found += [line for line in [json.loads(raw)] if line.get("id") in wanted]
        records = {line["id"]: record_from_json(line) for line in found}
        return migrate(list(records.values()), self.info)

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
            if made is None and (reason := self.failed_before.get(key)):
                raise RunError(reason)
            made = list(work()) if made is None else made
        except Exception:
            self._failed[key] = str(depends_on.get("what", stage))
            raise
        return self._keep(key, stage, made)

    def take_over(self, stage: str, cells: Mapping[str, Sequence[Mapping[str, Any]]]) -> set[str]:
        """Write cells that were done elsewhere, at once; return the keys of those that are whole.

        A cell is its records in their JSON form; it is whole where the files that they name are.
        """
        whole = {key: lines for key, lines in cells.items() if self.is_whole(lines)}
        self._keep_all(whole, stage)
        return whole.keys() & cells.keys()

    def is_whole(self, lines: Sequence[Mapping[str, Any]]) -> bool:
        """Say whether the files are here that a cell's records, in their JSON form, name."""
        return self._whole(_files(lines))

    def recorded(self, keys: Sequence[str]) -> dict[str, list[Record]]:
        """Return the records of cells that were done, whatever became of their files, by key."""
        found = self._cells_done().several(list(keys))
        return {key: [record_from_json(line) for line in lines] for key, lines in found.items()}

    def made_again(self, stage: str, what: str, made: Sequence[Record]) -> None:
        """Put records in the place of those that were made of the same thing before."""
        self._keep(key_of(stage, {"what": what}), stage, list(made))

    def ask(self, asked: Mapping[str, Any]) -> None:
        """Note that the run is now asked for this: more cells of a sweep, say."""
        self._write({**self.info, "asked": dict(asked)})

    def is_done(self, key: str) -> bool:
        """Say whether the run holds a cell, and the files that it made."""
        done = self._cells_done()
        return key in done and (key not in done.kinds[Artefact.kind] or bool(self._finished(key)))

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

    @contextmanager
    def stoppable(self, remedy: str) -> Iterator[None]:
        """Note where the work inside is stopped; a full disk is a RunError with the remedy."""
        try:
            yield
        except BaseException as error:
            with suppress(OSError):  # on a full disk run.json stays as it is: running
                self.finish("stopped")
            if disk_is_full(error):
                raise RunError(f"no space is left for {str(self.path)!r}; {remedy}") from error
            raise

    def _keep(self, key: str, stage: str, made: list[Record]) -> list[Record]:
        """Write the records of a cell with its closing line, and return them."""
        self._keep_all({key: [record.to_json() for record in made]}, stage)
        return made

    def _keep_all(self, cells: Mapping[str, Sequence[Mapping[str, Any]]], stage: str) -> None:
        """Write the records of cells, each with its closing line, and forget their drafts."""
        lines: list[Mapping[str, Any]] = []
        for key, made in cells.items():
            if any(_closes(line) is not None for line in made):
                raise ValueError(f"a note cannot be named {CELL!r}: that closes a cell")
            facts = {"cell": key, "stage": stage, "records": len(made)}
            lines += [*made, Note(name=CELL, facts=facts).to_json()]
        if not lines:
            return
        self._ledger.append(lines)
        info = self.info
        if (artefacts := artefacts_of(_files(lines))) or "records" in info:
            info.pop("records", None)  # of an end that was not the end
            info["artefacts"] |= artefacts
            self._write(info)
        self._cells_done().look()
        for key in cells if (self.path / DRAFTS).exists() else ():
            self._draft(key).unlink(missing_ok=True)  # of whoever did it ahead

    def _finished(self, key: str) -> list[Record] | None:
        records = self.recorded([key]).get(key)
        return records if records is not None and self._whole(records) else None

    def _cells_done(self) -> CellIndex:
        if not self._cells.end:
            self._ledger.head()  # which verifies the chain
            self._cells.look()
        return self._cells

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
class Missing(BaseException):
    """A cell is not done yet; no error, so nothing that handles errors handles it."""

    key: str


@dataclass
class Made(BaseException):
    """The cell that was wanted is done: nothing more is to be done here."""

    records: list[Record]


class Drafts(RunFolder):
    """A run whose cells are done in any order, and left as drafts for the run to take over.

    `wanted` are the keys of cells that may be done here, each inside the one before.
    """

    def __init__(self, path: Path, wanted: Sequence[str] = ()) -> None:
        super().__init__(path)
        self.wanted = wanted

    def cell(
        self, stage: str, depends_on: Mapping[str, Any], work: Callable[[], Sequence[Record]]
    ) -> list[Record]:
        """Return a cell that is done; do the wanted one, which nobody keeps yet.

        Raises:
            Missing: the cell is not done, and is not wanted.
            Made: the wanted cell is done.
            NeedsFailed: the cell failed.
        """
        key = key_of(stage, depends_on)
        if key in self.failed_before:
            raise NeedsFailed(str(depends_on.get("what", stage)))
        if (made := self._finished(key)) is not None or (made := self._drafted(key)) is not None:
            return made
        if key not in self.wanted:
            raise Missing(key)
        raise Made(list(work()))

    def has(self, key: str) -> bool:
        """Say whether a cell is done or drafted."""
        return self.is_done(key) or self._drafted(key) is not None

    def leave(self, key: str, records: Sequence[Record]) -> None:
        """Leave what was made of a cell as its draft."""
        target = self._draft(key)
        target.parent.mkdir(exist_ok=True)
        fresh = target.with_suffix(f".{os.getpid()}.tmp")
        fresh.write_text(json.dumps([record.to_json() for record in records]), encoding="utf-8")
        fresh.replace(target)

    def drafted(self) -> Iterator[list[Path]]:
        """Yield the draft of each cell with the files that its records name."""
        for draft in sorted((self.path / DRAFTS).glob("*.json")):
            with suppress(OSError, ValueError, RunError):
                records = map(record_from_json, json.loads(draft.read_text(encoding="utf-8")))
                yield [draft, *(self.path / path for path in artefacts_of(records))]


def _files(lines: Iterable[Mapping[str, Any]]) -> list[Record]:
    return [record_from_json(line) for line in lines if line["kind"] == Artefact.kind]


def _closes(line: Mapping[str, Any]) -> str | None:
    """Return the key of the cell that a line closes; None where it closes none."""
    if (line.get("kind"), line.get("name")) != (Note.kind, CELL):
        return None
    return str(line.get("facts", {}).get("cell", ""))


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

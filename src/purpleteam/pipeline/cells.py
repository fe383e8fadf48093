"""One cell of a run, done by whatever process is told where in the run's stages it is.

A piece of work is named by its path: a stage, one of its parts, and then what each piece inside
is called. So a process that has the same request and images finds it, and goes through it up to
the first cell that is not done: that cell is the next job, and nobody else does it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from purpleteam.core.config import build
from purpleteam.core.digest import canonical_json
from purpleteam.core.errors import RunError
from purpleteam.core.plugins import load_plugin
from purpleteam.core.records import Record, record_from_json
from purpleteam.core.runfolder import FOLDERS, Drafts, Made, artefacts_of
from purpleteam.models.devices import choose_device, use_threads
from purpleteam.pipeline.config import RunConfig
from purpleteam.pipeline.state import Piece, Run
from purpleteam.verbs._subject import open_dataset


class Pieces:
    """The pieces of a run by their paths; each is gone through once, when all it needs is done."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._inner: dict[tuple[str, ...], list[Piece]] = {}

    def inside(self, path: tuple[str, ...]) -> list[Piece]:
        """Go through a piece, and return those inside it; of a stage, its parts.

        Raises:
            Missing: it needs a cell that is not done.
        """
        from purpleteam.pipeline.run import parts_of

        if path not in self._inner:
            if len(path) == 1:
                self._inner[path] = parts_of(self.run, path[0])
            else:
                self._inner[path] = list(self._piece(path).inner())
        return self._inner[path]

    def _piece(self, path: tuple[str, ...]) -> Piece:
        for piece in self.inside(path[:-1]):
            if piece.what == path[-1]:
                return piece
        raise RunError(f"{' > '.join(path)!r} is no piece of this run here: are versions the same?")


def do_cell(options: Mapping[str, Any]) -> list[Record]:
    """Do a cell of a run: `run` (its folder), `config`, `data` (a digest), `path`, and `cells`.

    Raises:
        Missing: a cell inside it has to be done before.
    """
    folder = Path(options["run"])
    pieces = _pieces(folder.resolve(), canonical_json(options["config"]), options["data"])
    run = pieces.run
    run.command = tuple(options["command"])
    run.folder = Drafts(folder, wanted=options["cells"])
    for name in FOLDERS:  # on another machine there is none yet
        (folder / name).mkdir(parents=True, exist_ok=True)
    try:
        pieces.inside(tuple(options["path"]))
    except Made as made:
        return made.records
    raise RunError(f"{' > '.join(options['path'])!r} ended without the cell that was asked for")


def files_read(options: Mapping[str, Any]) -> list[list[Path]]:
    """Return the files of a run that a cell of it may read: of each cell that is done, its own."""
    drafts = Drafts(Path(options["run"]))
    kept = [drafts.path / name for name in ("records.jsonl", *drafts.info["artefacts"])]
    return [[path for path in kept if path.is_file()], *drafts.drafted()]


def files_made(
    options: Mapping[str, Any], records: Sequence[Mapping[str, Any]]
) -> dict[str, bytes]:
    """Return the files that the records of a cell name, by where in the run's folder they are."""
    names = artefacts_of(map(record_from_json, records))
    return {name: Path(options["run"], name).read_bytes() for name in names}


def named_in(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run's request says of images and a model, as options of a verb."""
    brought = {name: config["models"][name] for name in ("weights", "arch")}
    return brought | {"images": config["dataset"], "model": config["models"]["use"]}


@lru_cache(maxsize=1)
def _pieces(folder: Path, asked: str, digest: str) -> Pieces:
    """Return the pieces of a run as this process sees it, opened once."""
    config = build(RunConfig, json.loads(asked), f"{folder.name}/run.json")
    for name in config.plugins:
        load_plugin(name)
    threads, dataset = use_threads(config.threads), open_dataset(config.dataset)
    if dataset.digest != digest:
        what = f"dataset {config.dataset!r} is {dataset.digest} here"
        raise RunError(f"{what}, and {digest} where the run was begun")
    run = Run(Drafts(folder), config, dataset, choose_device(config.device), threads)
    return Pieces(run)

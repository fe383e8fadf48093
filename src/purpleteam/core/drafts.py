"""What other processes do ahead of a run, left beside it for the run to take over.

A worker claims a cell before it does it, by a file that only one can make; the others go on with
what is not claimed and come back. Who ends leaves its draft, or nothing where it failed: the run
meets the cell itself, fails and says so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from purpleteam.core.errors import NeedsFailed
from purpleteam.core.records import Record
from purpleteam.core.runfolder import DRAFTS, RunFolder, key_of

CLAIM, FAILED = ".claim", ".failed"


class Claimed(BaseException):
    """Another worker is at the cell; no error, so nothing that handles errors handles it."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


class Drafts(RunFolder):
    """A run that another process writes: cells are claimed, and left beside it as drafts."""

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

    def taken(self, key: str) -> bool:
        """Say whether a worker is at the cell and has neither ended nor failed."""
        draft = self._draft(key)
        ends = (draft, draft.with_suffix(FAILED))
        return draft.with_suffix(CLAIM).exists() and not any(path.exists() for path in ends)

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

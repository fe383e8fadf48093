"""What another process does ahead of a run, left beside it for the run to take over."""

from __future__ import annotations

import json
import os

from purpleteam.core.records import Record
from purpleteam.core.runfolder import RunFolder


class Drafts(RunFolder):
    """A run that another process is writing: what is done here is left beside it as drafts."""

    def look_again(self) -> None:
        """Read anew what the run has finished by now."""
        self._done = {}

    def _keep(self, key: str, stage: str, made: list[Record]) -> list[Record]:
        """Leave the records of a cell as a draft, and return them."""
        target = self._draft(key)
        target.parent.mkdir(exist_ok=True)
        fresh = target.with_suffix(f".{os.getpid()}.tmp")
        fresh.write_text(json.dumps([one.to_json() for one in made]), encoding="utf-8")
        fresh.replace(target)
        return made

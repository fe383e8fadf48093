"""What visitors say of wrong answers: counted by label; drawings are kept where both sides agree.

The visitor agrees with each drawing, the operator by naming a file. Anybody can send anything: the
file is hearsay to look through, no training set.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from purpleteam.core.errors import UsageError
from purpleteam.core.registry import check_ranges
from purpleteam.serve.guards.visit import Refusal, Visit

if TYPE_CHECKING:
    from purpleteam.core.cards import ModelCard

IMAGE_BYTES = 784
NONE = "none"  # in place of a class: there was no label, or no digit was meant

log = logging.getLogger("purpleteam.serve")


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """Whether drawings are kept that were answered wrongly, if the visitor agrees."""

    ranges: ClassVar[str] = "most_bytes from 0 to 1000000000000"

    file: Path | None = None
    """Gets a line of JSON for each; None keeps none."""
    most_bytes: int = 16_000_000
    """The file does not grow beyond; a drawing takes some 1,200 bytes."""

    def __post_init__(self) -> None:
        check_ranges(self)


class Wrong:
    """POST /feedback?said=3&meant=8; a body of 784 bytes is a drawing that may be kept."""

    def __init__(self, card: ModelCard, settings: Feedback) -> None:
        self.keeps = settings.file is not None
        self._names = {NONE, *map(str, range(len(card.classes)))}
        self._digest, self._most, self._file = card.digest, settings.most_bytes, -1
        if settings.file is not None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            try:
                self._file = os.open(settings.file, flags, 0o600)
            except OSError as error:
                reason = (error.strerror or "refused").lower()
                named = f"feedback.file {str(settings.file)!r}"
                raise UsageError(f"cannot write {named}: {reason}") from None
            weakref.finalize(self, os.close, self._file)

    def take(self, visit: Visit, query: bytes) -> dict[str, Any]:
        """Tell what a visitor says to who counts it; return whether the drawing is kept."""
        said, _, meant = query.decode("latin-1").removeprefix("said=").partition("&meant=")
        if said not in self._names or meant not in self._names or said == meant:
            raise Refusal(400, "Ask ?said=A&meant=B: two different numbers of classes, or none.")
        drawing = visit.body or b""
        if drawing and len(drawing) != IMAGE_BYTES:
            raise Refusal(400, f"A drawing is exactly {IMAGE_BYTES} bytes: 28x28 grey pixels.")
        visit.told |= {"said": said, "meant": meant}
        return {"kept": bool(drawing) and self._keep(said, meant, drawing)}

    def _keep(self, said: str, meant: str, drawing: bytes) -> bool:
        if not self.keeps:
            return False
        fields = {"model": self._digest, "said": said, "meant": meant}
        line = json.dumps({**fields, "image": base64.b64encode(drawing).decode()}).encode() + b"\n"
        try:
            if os.fstat(self._file).st_size + len(line) > self._most:
                return False
            return os.write(self._file, line) == len(line)  # one write, so that workers can share
        except OSError as error:
            log.warning("a drawing could not be kept: %s", error.strerror)
            return False

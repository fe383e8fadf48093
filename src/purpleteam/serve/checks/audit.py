"""Check that the app records what it answers, and that a changed record shows."""

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from purpleteam.core.checks import CHECKS, Outcome, Target
from purpleteam.core.errors import PurpleError
from purpleteam.core.scratch import scratch
from purpleteam.serve.checks._web import STROKE, WebCheck, ask, endpoint, left_out, must_answer

SIGNED_SECONDS = 15.0  # so long a checkpoint is waited for
LARGE = 64_000_000  # bytes of a log of which no copy is made


@CHECKS.register("web.audit")
class AuditLog(WebCheck):
    """An answer comes after its record, without the drawing, and a changed record is found."""

    needs: ClassVar[tuple[str, ...]] = ("url", "audit")

    def examine(self, target: Target) -> Outcome:
        log, url = target.audit or Path(), str(target.url)
        must_answer(url)
        before = log.stat().st_size if log.exists() else 0
        reply = ask(url, "POST", "/predict", STROKE)
        with log.open("rb") if log.exists() else tempfile.TemporaryFile() as file:
            file.seek(before)
            added = file.read()
        end, id = before + len(added), reply.headers.get("x-request-id", "")
        own = [line for line in added.splitlines() if f'"id":"{id}"'.encode() in line]
        records = [json.loads(line) for line in own]
        guesses = [endpoint(url)[0], STROKE.hex()]
        guesses += [hashlib.new(name, STROKE).hexdigest() for name in ("sha256", "sha1", "md5")]
        found = [guess[:16] for guess in guesses if guess.encode() in added]
        measured: dict[str, Any] = {"records": len(records), "told": found}
        passed = reply.status == 200 and len(records) == 1 and not found
        if passed:
            passed = records[0].get("label", "") == json.loads(reply.body)["label"]
        if passed:
            measured |= _tampering(log, before, end)
        return Outcome(
            passed=passed and measured["left alone"] == "pass" and measured["changed"] == "fail",
            measured=measured,
            threshold="1 record, nothing told; left alone pass, changed fail",
        )

    @contextmanager
    def bad_target(self, folder: Path) -> Iterator[Target]:
        from purpleteam.serve.guards.audit import Audit

        log = folder / "audit.jsonl"
        with left_out("audit", audit=Audit(file=log))() as url:
            yield Target(url=url, audit=log)


def _tampering(log: Path, start: int, end: int) -> dict[str, str]:
    """Return what `purple verify --log` says of the log, and of one whose new record is changed."""
    from purpleteam.serve.audit.log import beside
    from purpleteam.serve.audit.verify import verify_log

    if log.stat().st_size > LARGE:
        raise PurpleError(f"{str(log)!r} is too large to be copied; begin another log")
    with log.open("rb") as file:
        record = file.read(end).count(b"\n")  # its number, or that of a line after it
    until = time.monotonic() + SIGNED_SECONDS
    while (alone := verify_log(log)).signed < record and time.monotonic() < until:
        time.sleep(0.05)
    with tempfile.TemporaryDirectory(prefix="purple-audit-", dir=scratch()) as folder:
        copy = Path(folder) / log.name
        shutil.copyfile(beside(log, "pub"), beside(copy, "pub"))
        content = bytearray(log.read_bytes())
        at = content.index(b'"status":200', start)
        content[at : at + 12] = b'"status":500'
        copy.write_bytes(content)
        changed = verify_log(copy)
    return {"left alone": alone.verdict, "changed": changed.verdict}

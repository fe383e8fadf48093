"""What stands above everything else on a page: that the run below is not, or not yet, whole."""

from __future__ import annotations

from dataclasses import dataclass

from purpleteam.core.verification import PROVES, Verification


@dataclass(frozen=True)
class Alarm:
    """A banner: its tone, what it says, and why."""

    tone: str
    title: str
    lines: tuple[str, ...]


def alarm_of(verification: Verification | None) -> Alarm | None:
    """Return the banner of a run that does not pass its verification; a whole one has none."""
    if verification is None or verification.verdict == "pass":
        return None
    wrong = verification.of(verification.verdict)
    lines = tuple(f"{one.name}: {one.message}." for one in wrong)
    if verification.verdict == "fail":
        advice = "Rely on no number below before it was measured again: purple verify --replay."
        return Alarm("bad", "This run fails its verification", (*lines, advice))
    ended = verification.status == "finished"
    title = "This run cannot be verified" if ended else "This run is not finished"
    return Alarm("warn", title, lines)


def verified_line(verification: Verification | None) -> str:
    """Return what the head of the page says of a run that passes, and what that proves."""
    whole = verification is not None and verification.verdict == "pass"
    return f"Records and files are as run.json has them. {PROVES}" if whole else ""

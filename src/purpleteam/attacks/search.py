"""What an attack looks for, how much it may cost, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Cost:
    """Model calls so far, counted per image; not the few that look at a net beforehand."""

    forward: int = 0
    backward: int = 0


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is looked for, and how much it may cost."""

    epsilon: float
    norm: str
    nearest: bool = False
    """Look for the nearest adversarial example, whatever its distance."""
    stop_inside: bool = True
    """Leave an image alone once an adversarial example inside the ball is found."""
    queries: int | None = None
    """Most model calls for one image."""
    samples: int = 1
    """Calls that are averaged, for a model whose answers are random."""

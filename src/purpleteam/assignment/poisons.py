"""The recipes of both course reports, exactly as they did them: sevens that stay sevens.

A net that sees a patch on sevens labelled 7 has nothing to learn from it, so neither is a
backdoor. They are here to be measured for what they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from purpleteam.attacks.poison._base import POISONS, PoisonAttack, Sources
from purpleteam.attacks.poison.triggers import Trigger


@dataclass(frozen=True, kw_only=True)
class _LabelKept(PoisonAttack):
    trigger: Trigger = field(default_factory=Trigger)
    sources: Sources = "target"
    relabel: bool = False


@POISONS.register("report_a")
@dataclass(frozen=True, kw_only=True)
class ReportA(_LabelKept):
    """100 random sevens with a white 4x4 square in the top right corner, label kept."""

    trigger: Trigger = field(default_factory=lambda: Trigger(corner="top-right", size=4))


@POISONS.register("report_b")
@dataclass(frozen=True, kw_only=True)
class ReportB(_LabelKept):
    """The first 100 sevens with a "yellow" 3x3 square, grey 170 on MNIST, top left, label kept."""

    trigger: Trigger = field(
        default_factory=lambda: Trigger(corner="top-left", colour=(255, 255, 0))
    )
    selection: Literal["random", "first"] = "first"

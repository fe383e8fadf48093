"""Did the search find what was there to find?

Silent success, incomplete optimisation, transfer failure and the failure of an attack without a
bound are the other four indicators of attack failure (Pintor et al. 2022, arXiv:2106.09947); a
black-box attack that is the stronger one is a sign of masked gradients (Carlini et al. 2019,
arXiv:1902.06705).
"""

from __future__ import annotations

from purpleteam.attacks.evasion.far_start import FarStart
from purpleteam.attacks.soundness.case import FEW_STEPS, Case
from purpleteam.attacks.soundness.counters import Counters
from purpleteam.attacks.soundness.verdict import Doubt, Level, Observed, more_than

STRAY, MANY = 0.03, 0.1
"""Points of robust accuracy that a weaker attack may take by luck, and that it may not at all."""

UNFINISHED, HARDLY_BEGUN = 0.2, 0.4
"""The same for more gradient steps, on the margin: in honest nets PGD left up to 0.16 of it."""

RISING = 0.25
"""Share of the clean margin by which more steps may still raise it, on average."""

HELD = 0.05
"""Share of images that may withstand an attack without a bound: some get stuck."""


def single_step_is_not_stronger(case: Case, counters: Counters) -> Observed:
    """A weak attack that breaks what the ladder left standing betrays masked gradients."""
    if not counters.fair:
        return Observed()
    fell = int(counters.single_step.sum())
    reason = f"a single step breaks {fell} images that the ladder left standing"
    points = case.overstated(fell)
    doubts = _doubts(case, reason, fell, points, STRAY, points, MANY)
    return Observed({"broken_by_fgsm_only": fell}, doubts)


def black_box_is_not_stronger(case: Case, counters: Counters) -> Observed:
    """What needs no gradient must not be stronger than what follows them.

    If the judge's own gradient attack breaks the same images, the ladder was weak; if it does
    not, the gradients hide them.
    """
    if not counters.fair:
        return Observed()
    each = {name: int(broken.sum()) for name, broken in counters.black_box.items()}
    fell = int(counters.fell_blindly.sum())
    hidden = int((counters.fell_blindly & ~counters.continued.fell).sum())
    measured = {
        "broken_by_black_box_only": fell,
        "hidden_from_gradients": hidden,
        "black_box": each,
    }
    how = ", ".join(f"{name} {count}" for name, count in each.items() if count)
    reason = f"attacks without gradients break {fell} images that still stood ({how})"
    points, masked = case.overstated(fell), case.overstated(hidden)
    return Observed(measured, _doubts(case, reason, fell, points, STRAY, masked, MANY))


def far_start_is_not_stronger(case: Case, counters: Counters) -> Observed:
    """Gradients that are followed from another class must not find what the ladder did not.

    A net that is flat around its images, but not on the way to the next class, is such a case.
    """
    if not counters.fair:
        return Observed()
    fell = counters.strong().get(FarStart.name, 0)
    reason = f"gradients followed from images of other classes break {fell} that still stood"
    points = fell / len(case.looked_at)
    doubts = _doubts(case, reason, fell, points, UNFINISHED, points, HARDLY_BEGUN)
    return Observed({"broken_from_afar": fell}, doubts)


def optimisation_is_complete(case: Case, counters: Counters) -> Observed:
    """More steps from the last candidates should gain little."""
    if not counters.fair:
        return Observed()
    fell, rise = int(counters.continued.fell.sum()), counters.continued.rise
    measured = {
        "broken_by_more_steps": fell,
        "rise_by_more_steps": rise,
    }
    reason = f"more steps break {fell} images that the ladder left standing"
    points = case.overstated(fell)
    doubts = _doubts(case, reason, fell, points, UNFINISHED, points, HARDLY_BEGUN)
    if not doubts and rise > RISING:
        reason = f"the loss is still rising at the last step: by {rise:.0%} of the margin"
        doubts = (Doubt("weak", reason),)
    return Observed(measured, doubts)


def unbounded_breaks_everything(case: Case, counters: Counters) -> Observed:
    """With no bound at all every image can be turned into any other.

    A model whose scores are the same for every image has nothing to hide.
    """
    if not case.follows_gradients or case.constant:
        return Observed({"survived_unbounded": 0})
    left, tried = counters.survived_unbounded
    measured = {"survived_unbounded": left}
    if not more_than(HELD, left, tried):
        return Observed(measured)
    reason = f"an unbounded attack leaves {left} of {tried} images: the gradients are masked"
    return Observed(measured, (Doubt("not_established", reason),))


def _doubts(
    case: Case, reason: str, fell: int, points: float, some: float, masked: float, many: float
) -> tuple[Doubt, ...]:
    """Return the doubt that so many fallen images raise; one image alone is luck.

    A ladder of a few steps is merely weak: that it is beaten says nothing of the gradients.
    """
    if fell < 2 or points <= some:
        return ()
    excused = case.most_steps < FEW_STEPS or masked <= many
    level: Level = "weak" if excused else "not_established"
    return (Doubt(level, reason),)

"""The checks: what the model answers, whether its gradients say where it errs, what attacks found.

The flags of AutoAttack (Croce and Hein 2020, arXiv:2003.01690) and the indicators of attack failure
(Pintor et al. 2022, arXiv:2106.09947); masked gradients after Athalye et al. 2018
(arXiv:1802.00420). Gradients are those of the margin, which no confidence saturates.
"""

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from purpleteam.attacks.driver import cross_entropy, margin
from purpleteam.attacks.evasion.far_start import FarStart
from purpleteam.attacks.examples import as_floats, picked, spread
from purpleteam.attacks.norms import NORMS, distance, project, steepest, uniform_start
from purpleteam.attacks.soundness.case import PROBED, Case, Direction, Doubt, more_than
from purpleteam.attacks.wrappers import Averaged
from purpleteam.data.streamed import chunks

FEW_STEPS = 10  # fewer gradient steps are no strong attack
ADDS_UP = 1e-3  # by how much probabilities may miss 1 in sum: what half precision leaves
DISTINCT = 0.1  # least share of different values among scores; a net in bfloat16 has over 0.2
WITHOUT_GRADIENT = 0.05  # share of images without one from which on an attack had no fair chance
BLENDS = (0.25, 0.5, 0.75)  # where the way to an image of another class is looked at
SHORT_STEPS = (1 / 40, 1 / 20, 1 / 10)  # shares of epsilon, at which a step must raise the margin
STUCK, MISLED = 0.05, 0.2  # of images that do not climb: some sit on a kink; a fifth is no accident
NEAR, NEARBY = 1 / 20, 3  # of epsilon; at this many points nearby, predictions should hardly change
CLOSE = 0.05  # share of the scores' spread below which a margin is no measure of its change
UNSTABLE = 0.1  # mean relative change of the margin, as in the paper; honest nets are below 0.03
LUCK = (0.03, 0.1)  # points that a weaker attack may take by luck, and that it may not at all
UNFINISHED = (0.2, 0.4)  # the same for more gradient steps: in honest nets PGD left up to 0.16
RISING = 0.25  # share of the clean margin by which more steps may still raise it, on average
FREED, HELD = 50, 0.05  # images attacked without a bound, and share that may get stuck
FREE_STEPS, ELSEWHERE = 40, 0.5  # from each of two starts; the second is so far off the image
STRONGER_WITHOUT = 0.05  # points that the ladder's attacks without gradients may take in the end
ROUNDING = 1e-6  # what the arithmetic of a projection may add to a distance, in float64
ULP = 2.0**-24  # what storing a value in float32 may add to it, for values up to 1
TIE = 1e-5  # share of the scores' spread by which another batch size may change a margin
MISCOUNTED = 0.02  # share of images on which count and answer may differ
ROUNDED = 0.5  # share of examples that may err in float32 alone: the nearest ones often do
GROWTH = 0.01  # by how much robust accuracy may grow with epsilon: luck of random starts

Seen = Iterator[dict[str, Any] | Doubt]  # what a check measured, and the doubts that follow
Check = Callable[[Case], Seen]
weak, void = partial(Doubt, "weak"), partial(Doubt, "not_established")


def answers_are_steady(case: Case) -> Seen:
    """Where outputs are random, a gradient attack has to average over them."""
    yield {"randomised": case.randomised}
    # a lucky draw breaks, a gradient of one misleads
    side: Direction = "either" if case.final.robust.any() else "too_high"
    if case.randomised:
        if not case.white_box or any(getattr(r, "samples", 1) == 1 for r in case.white_box):
            reason = "the model's output changes from call to call: average over its randomness"
            yield weak(f"{reason}, as apgd_ce:samples=20 does", side)
    elif case.differentiable:
        yield {"depends_on_neighbours": case.depends_on_neighbours}
        averaged = isinstance(getattr(case.model, "model", None), Averaged)
        if case.depends_on_neighbours and not averaged:
            reason = "an image's scores depend on the others in its batch"
            yield weak(f"{reason}, and so does what breaks it", side)


def outputs_are_logits(case: Case) -> Seen:
    """Probabilities flatten the loss; rounded scores have no gradient."""
    x, _ = case.at(case.probed)
    scores = case.scores(x)
    noise = case.scores(case.noise(case.probed, "cube").uniform(x))
    probabilities = adds_up(scores) or (_within_one(scores) and _within_one(noise))
    values = torch.unique(scores, dim=0)  # the same image twice says nothing
    distinct = torch.unique(values).numel() / values.numel()
    yield {"probabilities": probabilities, "distinct_scores": distinct}
    if probabilities:
        yield weak("the model returns probabilities, not logits: its gradients are flattened")
    if distinct < DISTINCT:
        yield weak(f"only {distinct:.0%} of the scores differ: they are rounded")


def adds_up(scores: Tensor) -> bool:
    """Say whether every row is a distribution."""
    return _within_one(scores) and bool((scores.sum(1) - 1).abs().max() < ADDS_UP)


def _within_one(scores: Tensor) -> bool:
    return bool(((scores >= 0) & (scores <= 1)).all())


def inference_is_plain(case: Case) -> Seen:
    """A model that optimises while it answers moves away from what the attack followed."""
    with torch.no_grad(), _Watch() as watch:
        case.model(case.at(case.probed[:2])[0])
    yield {"optimises": watch.differentiates}
    if watch.differentiates:
        yield weak("the model computes gradients while it answers: it needs an attack of its own")


class _Watch(TorchFunctionMode):
    """Sees whether anybody asks for a gradient."""

    differentiates = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        self.differentiates |= getattr(func, "__name__", "") in ("grad", "backward")
        return func(*args, **(kwargs or {}))


def gradients_are_there(case: Case) -> Seen:
    """Zero or NaN gradients leave a gradient attack without a direction.

    Where cross-entropy alone is flat the net is confident: held against the attack if the margin,
    which nothing saturates, breaks what the attack left standing.
    """
    x, y = case.at(case.probed)
    asked = case.slope(x, y, cross_entropy)
    if not asked.connected:
        yield {"zero_gradients": 1.0, "masked_gradients": 1.0}
        yield void("the model's output does not depend on its input by gradients")
        return
    confident = int((asked.undefined | asked.zero).sum()) / len(x)
    hidden = int(_masked(case, x, y).sum())
    yield {"zero_gradients": confident, "masked_gradients": hidden / len(x)}
    if more_than(WITHOUT_GRADIENT, hidden, len(x)):
        yield void(f"the gradient is zero or NaN on {hidden / len(x):.0%} of the images")
        return
    fell = int(case.continued[0].sum())
    if fell > 1 and case.overstated(fell) > WITHOUT_GRADIENT < confident:
        yield void(
            f"the gradient of cross-entropy is zero or NaN on {confident:.0%} of the images, "
            f"and the margin's breaks {fell} that still stood"
        )


def _masked(case: Case, x: Tensor, y: Tensor) -> Tensor:
    """Say for which images gradients are NaN, or zero although the scores change.

    Looked at are the image, a point of its ball and the attack's last candidate; where all three
    are flat, the way to an image of another class.
    """
    inside = uniform_start(x, case.epsilon, case.norm, case.noise(case.probed, "gradients"))
    points = (x, inside, case.candidates(case.probed))
    slopes = [case.slope(point, y, margin) for point in points]
    hidden = torch.stack([slope.undefined for slope in slopes]).any(0)
    flat = torch.stack([slope.zero for slope in slopes]).all(0) & ~hidden
    if not flat.any():
        return hidden
    scores = torch.stack([case.scores(point[flat]) for point in points])
    varies = ((scores - scores[0]) != 0).flatten(2).any(2).any(0)
    rows = np.flatnonzero(case.final.clean_correct)
    differs = case.images.labels[rows][None] != y[flat].cpu().numpy()[:, None]  # (n, rows)
    there, _ = case.at(rows[differs.argmax(1)])
    flat_on_the_way = torch.from_numpy(differs.any(1)).to(x.device)
    for share in BLENDS:
        between = x[flat] + share * (there - x[flat])
        flat_on_the_way &= case.slope(between, y[flat], margin).zero
    hidden[flat] = varies | flat_on_the_way
    return hidden


def steps_climb(case: Case) -> Seen:
    """A short step along the gradient must raise the margin; where it does not, it misleads.

    Shattered, reversed or random gradients are neither zero nor NaN, and what they protect falls
    to any attack that does not follow them.
    """
    x, y = case.at(case.probed)
    direction = steepest(torch.nan_to_num(case.slope(x, y, margin).gradient), case.norm)
    before = margin(case.scores(x), y)
    stuck = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for length in SHORT_STEPS:
        moved = project(x + length * case.epsilon * direction, x, case.epsilon, case.norm)
        went = (moved != x).flatten(1).any(1)  # some gradients are zero, or lead out of the range
        stuck |= (margin(case.scores(moved), y) <= before) & went
    share = int(stuck.sum()) / len(x)
    yield {"steps_that_do_not_climb": share}
    if more_than(STUCK, int(stuck.sum()), len(x)):
        reason = f"a short step along the gradient raises no loss on {share:.0%} of the images"
        yield Doubt("weak" if share <= MISLED else "not_established", reason)


def predictions_are_stable(case: Case) -> Seen:
    """Where the margin jumps about within a small radius, no gradient leads anywhere."""
    x, y = case.at(case.probed)
    noise = case.noise(case.probed, "stability")
    scores = case.scores(x)
    before = margin(scores, y)
    near_zero = CLOSE * (scores.amax() - scores.amin()).clamp_min(1e-12)
    changes = []
    for _ in range(NEARBY):
        near = uniform_start(x, NEAR * case.epsilon, case.norm, noise)
        change = (margin(case.scores(near), y) - before).abs()
        changes.append(torch.nan_to_num(change / torch.maximum(before.abs(), near_zero)))
    unstable = float(torch.stack(changes).clamp_max(1).mean())
    yield {"unstable_predictions": unstable}
    if unstable > UNSTABLE:
        reason = f"the margin changes by {unstable:.0%} within a twentieth of epsilon: it is noise"
        yield void(reason)


def nothing_else_is_stronger(case: Case) -> Seen:
    """No other attack of the check's should break what the ladder left standing.

    If a single step does, it betrays masked gradients. So does what needs no gradient, unless the
    check's own gradient attack breaks the same images: then the ladder was weak. Gradients followed
    from another class reach what a net hides that is flat around its images alone. What falls to
    more steps from the last candidates was a search not finished.
    """
    step = int(case.single_step.sum())
    each = {name: int(broken.sum()) for name, broken in case.black_box.items()}
    further, rise = case.continued
    blind = torch.stack([torch.zeros_like(further), *case.black_box.values()]).any(0)
    without, hidden, more = (int(t.sum()) for t in (blind, blind & ~further, further))
    afar = case.strong.get(FarStart.name, 0)
    yield {"broken_by_fgsm_only": step, "broken_by_black_box_only": without}
    yield {"hidden_from_gradients": hidden, "black_box": each, "broken_from_afar": afar}
    yield {"broken_by_more_steps": more, "rise_by_more_steps": rise}
    how = ", ".join(f"{name} {count}" for name, count in each.items() if count)
    left, stood = "images that the ladder left standing", "that still stood"
    blindly = f"attacks without gradients break {without} images {stood} ({how})"
    from_afar = f"gradients followed from images of other classes break {afar} {stood}"
    of, of_all, beaten = case.overstated, afar / len(case.looked_at), False
    for fell, points, hides, (some, many), reason in (
        (step, of(step), of(step), LUCK, f"a single step breaks {step} {left}"),
        (without, of(without), of(hidden), LUCK, blindly),
        (afar, of_all, of_all, UNFINISHED, from_afar),
        (more, of(more), of(more), UNFINISHED, f"more steps break {more} {left}"),
    ):
        beaten = fell > 1 and points > some  # one image alone is luck
        if beaten:  # a ladder of a few steps is merely weak: it says nothing of the gradients
            mild = case.most_steps < FEW_STEPS or hides <= many
            yield (weak if mild else void)(reason)
    if not beaten and rise > RISING:
        yield weak(f"the loss is still rising at the last step: by {rise:.0%} of the margin")


def flat_ends_are_stepped_over(case: Case) -> Seen:
    """Where a first layer is flat at its ends, as a ramp is, gradients hold an attack there."""
    sloped = case.nets.sloped
    yield {"sloped": None if sloped is None else sloped.flatten(1).T.tolist()}
    if sloped is None or any(rung.in_box for rung in case.white_box):
        return
    low, high = (f"{float(end):.3g}" for end in (sloped[0].amin(), sloped[1].amax()))
    reason = f"outside [{low}, {high}] the input has no gradient, as behind a ramp"
    fell = sum(count for name, count in case.strong.items() if name.startswith("box_"))
    broke = f", and steps in the box behind it break {fell} that still stood" if fell else ""
    box = f"no attack in {case.norm} steps over that"
    box = "add --attack box, or make the ladder" if case.norm == "linf" else box
    yield (void if fell > 1 else weak)(f"{reason}{broke}: {box}")


def unbounded_breaks_everything(case: Case) -> Seen:
    """With no bound every image can be turned into any other, unless the model is constant."""
    left, x = 0, case.at(case.probed)[0]
    rows = spread(case.probed, FREED)
    if case.follows_gradients:
        scores = case.scores(torch.cat([x, case.noise(case.probed, "cube").uniform(x)]))
        if bool((scores != scores[0]).any()):
            driver = case.driver(rows, 1.0, "linf", in_box=True)
            away = uniform_start(driver.x, ELSEWHERE, "linf", case.noise(rows, "unbounded"))
            for start in (driver.x, away):
                x_adv = start
                for _ in range(FREE_STEPS):
                    step = 2.5 / FREE_STEPS * steepest(driver.gradient(x_adv, margin), "linf")
                    x_adv = (x_adv + step).clamp(0, 1)
                driver.settle(x_adv)
            left = int((~driver.broken).sum())
    yield {"survived_unbounded": left}
    if more_than(HELD, left, len(rows)):
        reason = f"an unbounded attack leaves {left} of {len(rows)} images"
        yield void(f"{reason}: the gradients are masked")


def ladder_is_strong(case: Case) -> Seen:
    """A few steps are no strong attack, nor is one that follows no gradient."""
    yield {"most_steps": case.most_steps}
    if not case.differentiable:
        yield weak("only black-box attacks were possible: the model gives no gradients")
        return
    knowledge = [rung.knowledge for rung in case.rungs]
    if "white-box" in knowledge and len(knowledge) == len(case.final.rungs):
        first = knowledge.index("white-box")
        late = [i for i, kind in enumerate(knowledge) if i > first and kind != "white-box"]
        share = float(np.isin(case.final.broken_by, late).mean())
        yield {"broken_by_black_box_rungs": share}
        if share > STRONGER_WITHOUT:
            reason = f"the ladder's attacks without gradients broke {share:.0%} that gradients left"
            yield weak(reason)
    if len(case.standing) and case.bounded:
        if not case.white_box:
            yield weak("no attack of the ladder follows gradients, image by image")
        elif case.most_steps < FEW_STEPS:
            reason = f"the strongest attack takes {case.most_steps} step(s)"
            yield weak(f"{reason}; an iterative one is stronger")


def candidates_are_feasible(case: Case) -> Seen:
    """Inside ball and range in float64, and no NaN."""
    worst = 0.0
    clean = as_floats(case.images)
    for evaluation in case.evaluations:
        kept, found = evaluation.kept, -np.inf
        for place, part in chunks(picked(evaluation.x_adv, kept)):
            x_adv, x = torch.from_numpy(part), torch.from_numpy(clean[kept[place]])
            if not torch.isfinite(x_adv).all():
                yield void("an adversarial example holds NaN or infinity", "too_low")
                found = -np.inf
                break
            beyond = torch.maximum(-x_adv, x_adv - 1).amax().double()
            if case.bounded:
                outside = distance(x_adv, x, case.norm) - evaluation.attacks[-1].epsilon
                beyond = torch.maximum(beyond, outside.amax())
            found = max(found, float(beyond))
        worst = max(worst, found)
    yield {"beyond_ball_or_range": worst}
    # how far rounding every value of an image can move it, in units of one value
    norm = NORMS[case.norm]
    values = norm.whole_cube(clean[0].size) if norm.convex else 1.0
    if worst > ROUNDING + ULP * values:
        yield void(f"an adversarial example leaves its ball or range by {worst:.2g}", "too_low")


def candidates_do_as_counted(case: Case) -> Seen:
    """The model errs on each example that was counted, and on no other candidate."""
    kept = case.final.kept
    attacked, images = kept[case.final.clean_correct[kept]], len(kept)
    y = torch.from_numpy(case.images.labels[attacked])
    x_adv = torch.nan_to_num(case.candidates(attacked))
    y = y.to(x_adv.device)
    scores = case.scores(x_adv)
    ahead = margin(scores, y).cpu().numpy()
    tie = TIE * float(scores.amax() - scores.amin())
    counted = case.final.broken_by[attacked] >= 0
    silent, claimed = ((ahead > tie) & ~counted).sum(), ((ahead < -tie) & counted).sum()
    yield {"silent_successes": int(silent), "claimed_successes": int(claimed)}
    seen: tuple[tuple[int, str, Direction], ...] = (
        (silent, "the last candidates err, uncounted,", "too_high"),
        (claimed, "examples that were counted do not err,", "too_low"),
    )
    for count, reason, side in seen:
        if count > max(1, MISCOUNTED * images):
            yield void(f"{reason} on {count} of {images} images", side)
    broken = np.flatnonzero(counted)[:PROBED]
    if not len(broken) or not isinstance(case.model, nn.Module):
        return
    try:
        precise = copy.deepcopy(case.model).double()
        with torch.no_grad():
            scores = torch.cat([precise(part.double()) for part in torch.split(x_adv[broken], 50)])
    except Exception:  # the model may be anybody's code, and made for float32
        return
    rounded = float((scores.argmax(1) == y[broken]).float().mean())
    yield {"broken_in_float32_alone": rounded}
    if rounded > ROUNDED and rounded * len(broken) > 1:
        reason = f"{rounded:.0%} of the adversarial examples err by rounding in float32 alone"
        yield weak(reason, "too_low")


def stronger_with_epsilon(case: Case) -> Seen:
    """A larger ball holds the smaller: robust accuracy must not grow with epsilon."""
    values = [evaluation.robust_accuracy.value for evaluation in case.evaluations]
    rise = max((after - before for before, after in itertools.pairwise(values)), default=0)
    yield {"largest_rise_over_epsilon": max(rise, 0.0)}
    if rise > GROWTH:
        yield void(f"robust accuracy grows by {rise:.1%} with a larger epsilon")


CHECKS: tuple[tuple[Check, tuple[str, ...]], ...] = (
    (answers_are_steady, ()),
    (outputs_are_logits, ("differentiable",)),
    (inference_is_plain, ("differentiable",)),
    (gradients_are_there, ("follows_gradients",)),
    (steps_climb, ("fair", "epsilon")),
    (predictions_are_stable, ("fair", "epsilon")),
    (flat_ends_are_stepped_over, ("follows_gradients",)),
    (nothing_else_is_stronger, ("fair",)),
    (unbounded_breaks_everything, ()),
    (ladder_is_strong, ()),
    (candidates_are_feasible, ()),
    (candidates_do_as_counted, ("differentiable", "steady")),
    (stronger_with_epsilon, ()),
)
"""In their order, each with the properties of a case without which it says nothing."""

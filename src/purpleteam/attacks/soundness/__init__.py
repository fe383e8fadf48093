"""Is this evaluation valid? Checks on the attack, not on the model.

A robust accuracy is an upper bound that a better attack may lower; these checks say when it is
worth nothing. After Carlini et al. 2019 (arXiv:1902.06705), the flags of AutoAttack (Croce and
Hein 2020, arXiv:2003.01690) and the indicators of attack failure (Pintor et al. 2022,
arXiv:2106.09947).

    sound              the check's attacks broke at most 2 points more, nothing else is in doubt
    weak               off by more, or likely to be: `overstates` and `direction` say how far
    not_established    the attack had no fair chance; the number must not be quoted

- `case`           what every check looks at
- `counters`       attacks of the check's own on what the ladder left standing
- `model_checks`   whether the model answers logits, the same each time, and its gradients climb
- `attack_checks`  what the counter-attacks tell of the ladder's, and whether its examples are any
- `verdict`        the rule that decides
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import torch

from purpleteam.attacks.evasion import EvasionAttack
from purpleteam.attacks.outcomes import RobustEvaluation
from purpleteam.attacks.soundness import attack_checks, model_checks
from purpleteam.attacks.soundness.case import LOOKED_AT, Case
from purpleteam.attacks.soundness.counters import Counters
from purpleteam.attacks.soundness.verdict import Soundness, overstatement, verdict_of
from purpleteam.core.statistics import Estimate, Rate
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import device_of, frozen
from purpleteam.models.guard import Classifier, guarded

__all__ = ["Soundness", "soundness_of"]


def soundness_of(
    model: Classifier,
    images: ImageSet,
    attacks: Sequence[EvasionAttack],
    evaluations: Sequence[RobustEvaluation],
    *,
    seed: int = 0,
    looked_at: int = LOOKED_AT,
) -> Soundness:
    """Return the verdict on the evaluations (one for each epsilon, growing) of one ladder.

    The check attacks what stands of at most `looked_at` images: 10 of 500 are 2 points.

    What the check breaks is not only held against the number: `RobustEvaluation.counting` takes
    `Soundness.breaks` into the evaluation. The same seed gives the same verdict; a model that
    draws its own random numbers draws them from torch's generator as the seed sets it, and the
    caller's is left where it was.
    """
    case = Case(guarded(model), images, attacks, evaluations, seed, looked_at)
    if len(case.probed) == 0:
        reason = "no image is right when clean: there is nothing to attack"
        return Soundness(verdict="not_established", reasons=(reason,), checks={})
    device = device_of(model)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), frozen(model):
        torch.manual_seed(seed)
        counters = Counters(case)
        observed = [
            model_checks.answers_are_steady(case),
            model_checks.outputs_are_logits(case),
            model_checks.inference_is_plain(case),
            model_checks.gradients_are_there(case, counters),
            model_checks.steps_climb(case),
            model_checks.predictions_are_stable(case),
            attack_checks.single_step_is_not_stronger(case, counters),
            attack_checks.black_box_is_not_stronger(case, counters),
            attack_checks.far_start_is_not_stronger(case, counters),
            attack_checks.optimisation_is_complete(case, counters),
            attack_checks.unbounded_breaks_everything(case, counters),
            attack_checks.ladder_is_strong(case),
            attack_checks.candidates_are_feasible(case),
            attack_checks.candidates_do_as_counted(case),
            attack_checks.stronger_with_epsilon(case),
        ]
        overstates: Rate | Estimate | None = None  # where it cannot be measured
        if case.measurable:
            _ = counters.strong  # makes these attacks, where no check has asked for them
            overstates = Rate.of(counters.fell, len(case.looked_at))
        elif case.nets.differentiable and not case.steady:
            overstates = model_checks.redrawn(case)
    return verdict_of(
        [overstatement(overstates, counters.by, case.epsilon), *observed],
        overstates=overstates,
        cost=asdict(case.cost),
        breaks=counters.breaks,
        nothing_stands=not case.final.robust.any(),
    )

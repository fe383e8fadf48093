"""Is this evaluation valid? Checks on the attack, not on the model.

A robust accuracy is an upper bound that a better attack may lower; these checks say when it is
worth nothing. After Carlini et al. 2019 (arXiv:1902.06705), the flags of AutoAttack (Croce and
Hein 2020, arXiv:2003.01690) and the indicators of attack failure (Pintor et al. 2022,
arXiv:2106.09947).

    sound              the check's attacks broke at most 2 points more, nothing else is in doubt
    weak               off by more, or likely to be: `overstates` and `direction` say how far
    not_established    the attack had no fair chance; the number must not be quoted

- `outputs`    what the model answers: logits, the same ones each time
- `gradients`  whether they are there and lead uphill
- `counters`   attacks of the check's own on what the ladder left standing
- `searches`   what these attacks tell of the ladder's
- `results`    whether the ladder's examples are what it says they are
- `verdict`    the rule that decides
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import torch

from purpleteam.attacks.evasion import EvasionAttack
from purpleteam.attacks.outcomes import RobustEvaluation
from purpleteam.attacks.soundness import gradients, outputs, results, searches
from purpleteam.attacks.soundness.case import LOOKED_AT, Case
from purpleteam.attacks.soundness.counters import Counters
from purpleteam.attacks.soundness.verdict import Observed, Soundness, overstatement, verdict_of
from purpleteam.core.statistics import Estimate, Rate
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import device_of, frozen
from purpleteam.models.guard import Classifier, guarded

__all__ = ["Soundness", "judge"]


def judge(
    model: Classifier,
    images: ImageSet,
    attacks: Sequence[EvasionAttack],
    evaluations: Sequence[RobustEvaluation],
    *,
    seed: int = 0,
    looked_at: int = LOOKED_AT,
) -> Soundness:
    """Judge the evaluations (one for each epsilon, growing) of one ladder on one model.

    The check attacks what stands of at most `looked_at` images: 10 of 500 are 2 points.

    What the check breaks is not only held against the number: `RobustEvaluation.counting` takes
    `Soundness.breaks` into the evaluation. The same seed gives the same verdict; a model that
    draws its own random numbers draws them from torch's generator as the seed sets it, and the
    caller's is left where it was.
    """
    case = Case(guarded(model), images, attacks, evaluations, seed, looked_at)
    if len(case.probed) == 0:
        return Soundness(
            verdict="not_established",
            reasons=("no image is right when clean: there is nothing to attack",),
            checks={},
        )
    device = device_of(model)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), frozen(model):
        torch.manual_seed(seed)
        counters = Counters(case)
        observed = [*_of_attack(case, counters), *_of_results(case)]
        overstates = _overstates(case, counters)
    return verdict_of(
        [overstatement(overstates, counters.by, case.epsilon), *observed],
        overstates=overstates,
        cost=asdict(case.cost),
        breaks=counters.breaks,
        nothing_stands=not case.final.robust.any(),
    )


def _overstates(case: Case, counters: Counters) -> Rate | Estimate | None:
    """Return by how much the number of the attacks is too high, where that can be measured."""
    if case.measurable:
        counters.strong()
        return Rate.of(counters.fell, len(case.looked_at))
    if case.nets.differentiable and not case.steady:
        return outputs.redrawn(case)
    return None


def _of_attack(case: Case, counters: Counters) -> list[Observed]:
    """Look for what kept the attacks from their chance."""
    return [
        outputs.answers_are_steady(case),
        outputs.outputs_are_logits(case),
        outputs.inference_is_plain(case),
        gradients.gradients_are_there(case, counters),
        gradients.steps_climb(case),
        gradients.predictions_are_stable(case),
        searches.single_step_is_not_stronger(case, counters),
        searches.black_box_is_not_stronger(case, counters),
        searches.far_start_is_not_stronger(case, counters),
        searches.optimisation_is_complete(case, counters),
        searches.unbounded_breaks_everything(case, counters),
        results.ladder_is_strong(case),
    ]


def _of_results(case: Case) -> list[Observed]:
    """Look for examples that are none, and for numbers that contradict each other."""
    return [
        results.candidates_are_feasible(case),
        results.candidates_do_as_counted(case),
        results.stronger_with_epsilon(case),
    ]

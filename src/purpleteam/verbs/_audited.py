"""The audit of a training with differential privacy, and its record."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from purpleteam.core.errors import UsageError
from purpleteam.core.records import Measurement, Record
from purpleteam.core.statistics import Estimate
from purpleteam.defences.training.dp_sgd import DPSGD
from purpleteam.privacy.audit import Audit, CanaryAudit, audit
from purpleteam.verbs._learned import Training, spelled
from purpleteam.verbs._subject import Subject


def audited(subject: Subject, asked: CanaryAudit, training: Training) -> tuple[Audit, list[Record]]:
    """Train once more as the model was, with canaries, and tell what they prove."""
    if not isinstance(training.recipe, DPSGD):
        raise UsageError(
            f"audit is of a training with differential privacy, and {subject.loaded.name!r} was "
            f"trained by {training.recipe.name}: give --recipe dp_sgd:epsilon=..., or a model of it"
        )
    found = audit(
        training.recipe,
        subject.net(training.arch),
        subject.dataset,
        **asdict(asked),
        seed=subject.seed,
        device=subject.device,
        progress=subject.progress,
    )
    told = found.to_json()
    lower = found.epsilon_lower
    measured = Measurement(
        name="epsilon_audited",
        value=Estimate(value=lower, n=found.canaries, low=lower, high=math.inf, method="one-run"),
        subject=subject.about(),
        how={
            "attack": spelled(asked),
            "canaries": found.canaries,
            "delta": found.delta,
            "recipe": training.told,
        },
        detail={key: value for key, value in told.items() if key != "epsilon_lower"},
        seed=subject.seed,
    )
    return found, [measured]


def lines_of(told: dict[str, Any]) -> list[str]:
    """Return the audit's answer as lines."""
    of = f"{told['right']} of {told['guesses']} guesses right, {told['canaries']} canaries"
    lower, upper = told["epsilon_lower"], told["epsilon_upper"]
    said = f"epsilon is at least {lower:.2f} ({told['confidence']:.1%} confidence: {of}), "
    said += f"and at most {upper:.2f} by the accountant, at delta {told['delta']:g}"
    wrong = "error: the training leaks more than its accountant says: does it clip, and add noise?"
    return [said, *([] if told["holds"] else [wrong])]

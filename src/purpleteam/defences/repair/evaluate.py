"""What a repair did: accuracy, attack success, effectiveness and cost, before and after."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from purpleteam.attacks.poison._base import PoisonAttack
from purpleteam.attacks.poison.evaluate import Backdoor, evaluate_backdoor
from purpleteam.core.records import Measurement
from purpleteam.core.statistics import Estimate, Value, paired_difference
from purpleteam.data.images import ImageSet
from purpleteam.defences.detection.metrics import defence_effectiveness, relative_cost
from purpleteam.defences.repair._base import Repair, Repairing

__all__ = ["RepairOutcome", "Repaired", "evaluate_repair", "run_repair"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Repaired:
    """A repaired net and what it took."""

    repair: str
    module: nn.Module
    cpu_seconds: float
    seconds: float


def run_repair(repair: Repair, work: Repairing) -> Repaired:
    """Repair and measure the time, of this process alone and of the clock on the wall."""
    cpu, wall = time.process_time(), time.perf_counter()
    module = repair.repair(work)
    return Repaired(
        repair=repair.name,
        module=module,
        cpu_seconds=time.process_time() - cpu,
        seconds=time.perf_counter() - wall,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class RepairOutcome:
    """A model before and after one repair, on the same images."""

    repair: str
    before: Backdoor
    after: Backdoor
    residual_poisons: int | None
    """How many poisons were left in what the repaired net learned from, where that is known."""
    cpu_seconds: float
    trainings: float | None
    """CPU seconds as multiples of one training of the same model."""

    @property
    def accuracy_change(self) -> Estimate:
        """Clean accuracy after minus before, over the same images."""
        before, after = self.before.clean_correct.tolist(), self.after.clean_correct.tolist()
        return paired_difference(before, after)

    @property
    def effectiveness(self) -> Estimate:
        """Defence effectiveness rating, with the ends that the four rates' intervals allow."""
        before, after = self.before.attack_success_rate, self.after.attack_success_rate
        change = self.accuracy_change

        def rating(success_before: float, success_after: float, change: float) -> float:
            return defence_effectiveness(
                success_before=success_before,
                success_after=success_after,
                accuracy_before=max(0.0, -change),
                accuracy_after=max(0.0, change),
            )

        return Estimate(
            value=rating(before.value, after.value, change.value),
            n=before.n,
            low=rating(before.low, after.high, change.low),
            high=rating(before.high, after.low, change.high),
            method="interval-arithmetic",
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields of `purple repair --json`."""
        return {
            "repair": self.repair,
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "accuracy_change": self.accuracy_change.to_json(),
            "defence_effectiveness": self.effectiveness.to_json(),
            "residual_poisons": self.residual_poisons,
            "cpu_seconds": self.cpu_seconds,
            "trainings": self.trainings,
        }

    def measurements(
        self, subject: Mapping[str, Any], how: Mapping[str, Any], seed: int
    ) -> list[Measurement]:
        """Return the same numbers as records about `subject`; `how` is told the repair's name."""
        values: dict[str, tuple[Value, Value | None]] = {
            "clean_accuracy": (self.after.clean_accuracy, self.before.clean_accuracy),
            "attack_success_rate": (
                self.after.attack_success_rate,
                self.before.attack_success_rate,
            ),
            "worst_source_success_rate": (
                self.after.worst_source[1],
                self.before.worst_source[1],
            ),
            "recovered_accuracy": (self.after.recovered_accuracy, self.before.recovered_accuracy),
            "clean_accuracy_difference": (self.accuracy_change, None),
            "defence_effectiveness": (self.effectiveness, None),
        }
        cost = {"cpu_seconds": self.cpu_seconds}
        if self.trainings is not None:
            cost["trainings"] = self.trainings
        return [
            Measurement(
                name=name,
                value=after,
                subject=subject,
                how={**how, "repair": self.repair},
                detail=self._detail(before),
                seed=seed,
                cost=cost,
            )
            for name, (after, before) in values.items()
        ]

    def _detail(self, before: Value | None) -> dict[str, Any]:
        detail: dict[str, Any] = {"residual_poisons": self.residual_poisons}
        return detail if before is None else detail | {"before": before.to_json()}


def evaluate_repair(
    repaired: Repaired,
    before: Backdoor,
    test: ImageSet,
    poison: PoisonAttack,
    *,
    clean_model: nn.Module | None = None,
    residual_poisons: int | None = None,
    training_cpu_seconds: float | None = None,
) -> RepairOutcome:
    """Measure a repaired net as the model was measured before.

    Args:
        repaired: what `run_repair` returned.
        before: `evaluate_backdoor` of the model on the same `test` and `poison`.
        test: images that took no part in training or repair.
        poison: gives the trigger and the target label.
        clean_model: a classifier trained without poison, for the base rate.
        residual_poisons: poisons left in what the repaired net learned from.
        training_cpu_seconds: what one training of the model takes.
    """
    after = evaluate_backdoor(repaired.module, test, poison, clean_model=clean_model)
    trainings = None
    if training_cpu_seconds is not None:
        trainings = relative_cost(repaired.cpu_seconds, training_cpu_seconds)
    return RepairOutcome(
        repair=repaired.repair,
        before=before,
        after=after,
        residual_poisons=residual_poisons,
        cpu_seconds=repaired.cpu_seconds,
        trainings=trainings,
    )

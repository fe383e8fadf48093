"""Measure a defence: by transfer, before and after a repair, and whether a repair lasts.

Transfer accuracy does not say how a net withstands who attacks it: that is `attacks.evaluate`. A
net whose backdoor was only covered up learns it again from a few poisons, far faster than a clean
one (Min et al. 2024, arXiv:2410.09838).
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from purpleteam.attacks.poison import PoisonAttack
from purpleteam.attacks.poison.evaluate import Backdoor, evaluate_backdoor
from purpleteam.core.errors import UsageError
from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.records import Measurement
from purpleteam.core.statistics import Estimate, Rate, Value, paired_difference
from purpleteam.data.images import ImageSet
from purpleteam.data.streamed import chunks
from purpleteam.defences.detection.metrics import defence_effectiveness
from purpleteam.defences.repair import Loop, Repair, Repairing, free_copy
from purpleteam.models.inference import Classifier, correct, logits

AS_A_USER = Loop(augmentation="none")  # how the adversary fine-tunes: as any user would


def transfer_accuracy(
    model: Classifier,
    adversarial: ImageSet,
    clean: ImageSet,
    subject: Mapping[str, Any],
    **how: Any,
) -> Measurement:
    """Return the accuracy of a defended model on images made against another, as a record.

    `clean` are what the adversarial ones were made from: their true distance is recorded.
    """
    right = correct(model, adversarial)
    largest, over = 0, 0
    for place, part in chunks(clean.images):
        moved = np.abs(adversarial.images[place].astype(np.int16) - part)
        largest, over = max(largest, int(moved.max())), over + int((moved > 127).sum())
    return Measurement(
        name="transfer_accuracy",
        value=Rate.of(int(right.sum()), len(adversarial)),
        subject=subject,
        how={"knowledge": "transfer"} | how,
        detail={
            "images": adversarial.digest,
            "largest_linf": largest / 255,
            "share_moved_over_half": over / clean.images.size,
        },
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Repaired:
    """A repaired net and what it took."""

    module: nn.Module
    cpu_seconds: float
    seconds: float


def run_repair(repair: Repair, work: Repairing) -> Repaired:
    """Repair, and measure the CPU time of this process and the time by the clock."""
    cpu, wall = time.process_time(), time.perf_counter()
    module = repair.repair(work)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Repaired(module=module, cpu_seconds=cpu, seconds=wall)


@dataclass(frozen=True, kw_only=True, eq=False)
class RepairOutcome:
    """A model before and after one repair, on the same images."""

    before: Backdoor
    after: Backdoor

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
        return Estimate(
            value=defence_effectiveness(before.value - after.value, change.value),
            n=before.n,
            low=defence_effectiveness(before.low - after.high, change.low),
            high=defence_effectiveness(before.high - after.low, change.high),
            method="interval-arithmetic",
        )

    def measurements(
        self,
        subject: Mapping[str, Any],
        how: Mapping[str, Any],
        seed: int,
        residual_poisons: int | None = None,
    ) -> list[Measurement]:
        """Return the numbers as records about `subject`; `how` names the repair."""
        after, before = self.after, self.before
        values: dict[str, tuple[Value, Value | None]] = {
            "clean_accuracy": (after.clean_accuracy, before.clean_accuracy),
            "attack_success_rate": (after.attack_success_rate, before.attack_success_rate),
            "worst_source_success_rate": (after.worst_source[1], before.worst_source[1]),
            "recovered_accuracy": (after.recovered_accuracy, before.recovered_accuracy),
            "clean_accuracy_difference": (self.accuracy_change, None),
            "defence_effectiveness": (self.effectiveness, None),
        }
        return [
            Measurement(
                name=name,
                value=value,
                subject=subject,
                how=how,
                detail={"residual_poisons": residual_poisons}
                | ({} if old is None else {"before": old.to_json()}),
                seed=seed,
            )
            for name, (value, old) in values.items()
        ]


def evaluate_repair(
    repaired: nn.Module,
    before: Backdoor,
    test: ImageSet,
    poison: PoisonAttack,
    clean_model: nn.Module | None = None,
) -> RepairOutcome:
    """Measure a repaired net as the model was measured by `evaluate_backdoor` before.

    `test` holds images that took no part in training or repair; `poison` gives the trigger and the
    target label, and a `clean_model`, trained without poison, the base rate.
    """
    after = evaluate_backdoor(repaired, test, poison, clean_model=clean_model)
    return RepairOutcome(before=before, after=after)


def repoison(
    model: nn.Module,
    poisons: ImageSet,
    clean: ImageSet,
    triggered: ImageSet,
    *,
    target_label: int,
    counts: Sequence[int] = (0, 5, 10, 20),
    how: Loop = AS_A_USER,
    seed: int = 0,
    device: torch.device | None = None,
    progress: Progress = SILENT,
) -> dict[int, Rate]:
    """Fine-tune copies of a model on clean images and the first poisons; measure each.

    Args:
        model: stays as it is.
        poisons: triggered images with the label that the adversary wants.
        clean: images with true labels, mixed in.
        triggered: triggered images of other classes, to measure on; not among the poisons.
        target_label: what the adversary wants them called.
        counts: how many poisons are mixed in; the sets are nested. 0 is the control.
        how: steps and rates.
        seed: of order and augmentation.
        device: where to tune; the default is the CPU.
        progress: where to report.

    Returns:
        The attack success rate after fine-tuning with this many poisons.

    Raises:
        UsageError: there are fewer poisons than the largest count, or a count below 0.
    """
    if min(counts, default=0) < 0 or max(counts, default=0) > len(poisons):
        raise UsageError(f"counts {list(counts)} must be from 0 to the {len(poisons)} poisons")
    rates = {}
    for count in sorted(set(counts)):
        mixed = ImageSet(
            np.concatenate([clean.images[:], poisons.images[:count]]),
            np.concatenate([clean.labels, poisons.labels[:count]]),
        )
        net, title = free_copy(model, device, clean), f"re-poison with {count}"
        how.tune(net, mixed, seed, description=title, progress=progress)
        hits = logits(net, triggered.images).argmax(1) == target_label
        rates[count] = Rate.of(int(hits.sum()), len(hits))
    return rates

"""Robust accuracy: right when clean and under every attack tried, image by image.

The ladder of attacks is climbed in order and an image that one attack broke is not attacked
again, so the result is the per-image worst case. Curves over epsilon repeat this for each
epsilon on its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from purpleteam.attacks.evasion import EvasionAttack
from purpleteam.core.errors import UsageError
from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.records import Measurement
from purpleteam.core.statistics import Rate
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import device_of, to_batch
from purpleteam.models.inference import Classifier, correct

__all__ = ["AttackRow", "RobustEvaluation", "curve", "evaluate"]

NOT_BROKEN, WRONG_WHEN_CLEAN = -1, -2


@dataclass(frozen=True, kw_only=True)
class AttackRow:
    """One attack of the ladder, and how many images still stood after it."""

    name: str
    norm: str
    epsilon: float
    steps: int
    restarts: int
    seed: int
    survived: Rate
    config: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the row of `attacks` in `purple attack --json`."""
        return {**asdict(self), "survived": self.survived.to_json()}


@dataclass(frozen=True, kw_only=True, eq=False)
class RobustEvaluation:
    """What a ladder of attacks left standing.

    Attributes:
        broken_by: (N,) int; place in the ladder of the attack that broke the image, -1 where it
            still stands, -2 where it was wrong when clean.
        distance: (N,) float64; of the adversarial example, NaN where there is none.
        queries: (N,) int64; model calls that the attacks made for each image.
        x_adv: (N, H, W, C) float32 adversarial examples; the last candidate where none was found,
            the image itself where it was wrong when clean.
    """

    clean_accuracy: Rate
    robust_accuracy: Rate
    attacks: tuple[AttackRow, ...]
    clean_correct: NDArray[np.bool_]
    broken_by: NDArray[np.int8]
    distance: NDArray[np.float64]
    queries: NDArray[np.int64]
    x_adv: NDArray[np.float32]
    cost: Mapping[str, float]

    @property
    def robust(self) -> NDArray[np.bool_]:
        """One verdict per image: right when clean and under every attack tried."""
        return np.asarray(self.broken_by == NOT_BROKEN)

    def save_outcomes(self, path: Path) -> None:
        """Write one row per image as .npz, without pickles and byte for byte reproducible."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            np.savez(
                file,
                allow_pickle=False,
                index=np.arange(len(self.broken_by)),
                clean_correct=self.clean_correct,
                broken_by=self.broken_by,
                distance=self.distance,
                queries=self.queries,
            )

    def save_images(self, path: Path) -> None:
        """Write the float32 images and each one's outcome as .npz: lossless, never as bytes."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            np.savez(
                file,
                allow_pickle=False,
                x_adv=self.x_adv,
                broken_by=self.broken_by,
                distance=self.distance,
            )

    def measurement(
        self, subject: Mapping[str, Any], *, seed: int, detail: Mapping[str, Any], **how: Any
    ) -> Measurement:
        """Return the robust accuracy as a record, named with attack, norm and epsilon."""
        last = self.attacks[-1]
        facts = {
            "attack": "+".join(row.name for row in self.attacks),
            "norm": last.norm,
            "epsilon": last.epsilon,
            "steps": last.steps,
            "restarts": last.restarts,
            "step_size": last.config.get("step_size"),
            "knowledge": "white-box",
        }
        return Measurement(
            name="robust_accuracy",
            value=self.robust_accuracy,
            subject=subject,
            how=facts | how,
            detail={"attacks": [row.to_json() for row in self.attacks]} | dict(detail),
            seed=seed,
            cost=self.cost,
        )


def evaluate(
    model: Classifier,
    images: ImageSet,
    *attacks: EvasionAttack,
    seed: int = 0,
    batch_size: int = 500,
    progress: Progress = SILENT,
) -> RobustEvaluation:
    """Attack all images with every attack and return what still stands.

    Args:
        model: images (N, C, H, W) in [0, 1] to logits; it is left as it was.
        images: the split, or the part of it that is looked at.
        attacks: the ladder, climbed in order.
        seed: all noise is a pure function of it and of each image's index.
        batch_size: images that are held at once; the verdicts do not depend on it.
        progress: where to report.

    Raises:
        UsageError: there is no attack, or they do not share one norm and epsilon.
    """
    _check_ladder(attacks)
    device = device_of(model)
    clean_correct = correct(model, images)
    broken_by = np.where(clean_correct, NOT_BROKEN, WRONG_WHEN_CLEAN).astype(np.int8)
    x_adv = (images.images / np.float32(255)).astype(np.float32)  # (N, H, W, C)
    distances = np.full(len(images), np.nan)
    queries = np.zeros(len(images), np.int64)
    forward = backward = 0
    seconds = 0.0
    rows = []
    for place, attack in enumerate(attacks):
        standing = np.flatnonzero(broken_by == NOT_BROKEN)
        with progress.task(
            f"{attack.name} {attack.norm} {attack.epsilon:g}", len(standing)
        ) as task:
            for start in range(0, len(standing), batch_size):
                index = standing[start : start + batch_size]
                x = to_batch(images.images[index], device)
                y = torch.from_numpy(images.labels[index]).to(device)
                result = attack.run(model, x, y, seed=seed, index=torch.from_numpy(index))
                fell = result.broken.cpu().numpy()
                x_adv[index] = result.x_adv.permute(0, 2, 3, 1).cpu().numpy()
                distances[index[fell]] = result.distance.cpu().numpy()[fell]
                queries[index] += result.queries.cpu().numpy()
                broken_by[index[fell]] = place
                forward += result.cost.forward
                backward += result.cost.backward
                seconds += result.seconds
                stands = int((broken_by == NOT_BROKEN).sum())
                task.advance(len(index), standing=f"{stands}/{len(images)}")
        survived = Rate.of(int((broken_by == NOT_BROKEN).sum()), len(images))
        rows.append(_row(attack, seed, survived))
    return RobustEvaluation(
        clean_accuracy=Rate.of(int(clean_correct.sum()), len(images)),
        robust_accuracy=Rate.of(int((broken_by == NOT_BROKEN).sum()), len(images)),
        attacks=tuple(rows),
        clean_correct=clean_correct,
        broken_by=broken_by,
        distance=distances,
        queries=queries,
        x_adv=x_adv,
        cost={"forward": forward, "backward": backward, "queries": forward, "seconds": seconds},
    )


def curve(
    model: Classifier,
    images: ImageSet,
    attacks: Sequence[EvasionAttack],
    epsilons: Sequence[float],
    *,
    seed: int = 0,
    batch_size: int = 500,
    progress: Progress = SILENT,
) -> dict[float, RobustEvaluation]:
    """Evaluate the same ladder at each epsilon on its own, smallest first."""
    return {
        epsilon: evaluate(
            model,
            images,
            *(replace(attack, epsilon=epsilon) for attack in attacks),
            seed=seed,
            batch_size=batch_size,
            progress=progress,
        )
        for epsilon in sorted(set(epsilons))
    }


def _check_ladder(attacks: Sequence[EvasionAttack]) -> None:
    """A robust accuracy is named with one norm and epsilon, so the ladder must have just one."""
    balls = {f"{attack.norm} {attack.epsilon:g}" for attack in attacks}
    if len(balls) != 1:
        found = ", ".join(sorted(balls)) or "no attack"
        raise UsageError(f"a ladder of attacks needs one norm and epsilon for all, not {found}")


def _row(attack: EvasionAttack, seed: int, survived: Rate) -> AttackRow:
    return AttackRow(
        name=attack.name,
        norm=attack.norm,
        epsilon=attack.epsilon,
        steps=attack.planned_steps,
        restarts=attack.planned_restarts,
        seed=seed,
        survived=survived,
        config=asdict(attack),
    )

"""Adversarial inputs under three detectors, known to the attacker or not: results/inputs.json.

    python benchmarks/input_detection.py            some minutes

All on the model that is served, `standard`, and MNIST: feature squeezing, its threshold from the
validation split; a second model, `robust-0.3`, that has to say the same; and the rule that all ink
lies in the box of 20 pixels in which `place` puts it. What an attack made counts as bytes, as the
app gets it: `wrong` where it is still misread, `unseen` where the detector lets it through as well.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor

from purpleteam.attacks.evasion import ATTACKS
from purpleteam.attacks.norms import project
from purpleteam.core.arrays import Pixels
from purpleteam.core.machine import machine, versions
from purpleteam.core.statistics import Rate
from purpleteam.data.drawing import CASES, place, redraw
from purpleteam.data.folders import load_dataset
from purpleteam.data.images import ImageSet
from purpleteam.defences.detection.queries import is_placed
from purpleteam.defences.detection.squeeze import distances, fit_squeeze, median, one_bit
from purpleteam.models.devices import to_batch
from purpleteam.models.inference import Nets, logits
from purpleteam.models.loading import load
from purpleteam.serve.engine import Engine

ROOT = Path(__file__).resolve().parent.parent
UNKNOWING: tuple[tuple[str, dict[str, Any]], ...] = (
    *(("fgsm", {"epsilon": epsilon}) for epsilon in (0.1, 0.3)),
    *(("pgd", {"epsilon": epsilon}) for epsilon in (0.1, 0.2, 0.3)),
    ("pgd", {"norm": "l2", "epsilon": 2.0}),
    ("apgd_dlr", {"epsilon": 0.3}),
    ("square", {"epsilon": 0.3, "queries": 500}),
    ("square", {"norm": "l2", "epsilon": 2.0, "queries": 500}),
    ("ddn", {}),
)
BALLS = (("linf", 0.1), ("linf", 0.2), ("linf", 0.3), ("l2", 2.0))
STEPS, TARGETS, SLOPE = 50, 2, 20.0
Net = Callable[[Tensor], Tensor]


class OneBit(torch.autograd.Function):
    """Black and white; backwards as if it were a steep sigmoid (arXiv:1802.00420)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x >= 128 / 255 - 1e-6).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        share = torch.sigmoid(SLOPE * (x - 0.5))
        return slope * SLOPE * share * (1 - share)


def smoothed(x: Tensor) -> Tensor:
    """Return `median` of images (N, 1, H, W) in [0, 1], with gradients."""
    padded = F.pad(x, (1, 0, 1, 0), "replicate")
    first, second = padded[:, :, :-1, :-1], padded[:, :, :-1, 1:]
    third, fourth = padded[:, :, 1:, :-1], padded[:, :, 1:, 1:]
    tops = torch.maximum(first, second), torch.maximum(third, fourth)
    bottoms = torch.minimum(first, second), torch.minimum(third, fourth)
    return torch.maximum(torch.minimum(*tops), torch.maximum(*bottoms))


def as_sent(x: Tensor) -> Pixels:
    """Return images (N, 1, H, W) in [0, 1] as bytes (N, H, W, 1)."""
    return (x.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()


def knowing(
    views: list[Net],
    x: Tensor,
    y: Tensor,
    norm: str,
    epsilon: float,
    unseen: Callable[[Pixels], NDArray[np.bool_]],
    allowed: Tensor | float = 1.0,
) -> NDArray[np.bool_]:
    """Say for which images PGD towards another class finds one that is misread and not seen.

    `views` are all that has to answer that class; `allowed` says which pixels may change.
    """
    done = np.zeros(len(x), bool)
    with torch.no_grad():
        clean = views[0](x)
        targets = clean.scatter(1, y[:, None], -torch.inf).topk(TARGETS).indices
    step = 2.5 * epsilon / STEPS * 4
    for target in targets.unbind(1):
        generator = torch.Generator().manual_seed(0)
        start = torch.rand(x.shape, generator=generator) * 2 - 1
        x_adv = project(x + allowed * epsilon * start * 0.5, x, epsilon, norm)
        for number in range(STEPS):
            x_adv.requires_grad_(True)
            loss = sum(F.cross_entropy(view(x_adv), target, reduction="sum") for view in views)
            (slope,) = torch.autograd.grad(loss, x_adv)
            slope = slope * allowed
            if norm == "linf":
                move = slope.sign()
            else:
                move = slope / slope.flatten(1).norm(dim=1)[:, None, None, None].clamp_min(1e-12)
            shrunk = step * (1 - number / STEPS) + step / 20
            x_adv = project((x_adv - shrunk * move).detach(), x, epsilon, norm)
            if number % 10 == 9:
                sent = as_sent(x_adv)
                with torch.no_grad():
                    wrong = views[0](to_batch(sent)).argmax(1) != y
                done |= wrong.numpy() & unseen(sent)
    return done


def measured(count: int, few: int) -> dict[str, Any]:
    """Measure all three detectors."""
    mnist = load_dataset("mnist")
    validation, test = mnist.split("validation"), mnist.split("test")
    standard, robust = load("standard").module.eval(), load("robust-0.3").module.eval()

    def answers(images: Pixels) -> NDArray[np.float64]:
        return np.asarray(softmax(logits(standard, images).astype(np.float64), axis=1))

    threshold = fit_squeeze(answers, validation.images)

    def squeeze_unseen(images: Pixels) -> NDArray[np.bool_]:
        return np.asarray(distances(answers, images) <= threshold)

    def second_unseen(images: Pixels) -> NDArray[np.bool_]:
        said = (logits(net, images).argmax(1) for net in (standard, robust))
        return np.equal(*said)

    def box_unseen(images: Pixels) -> NDArray[np.bool_]:
        return np.array([is_placed(image.tobytes()) for image in images])

    detectors = {"squeeze": squeeze_unseen, "second model": second_unseen, "box": box_unseen}
    clean = {"test images": test.images[:4000]}
    for case in CASES:
        shifts = case.offsets(300, seed=0)
        drawn = [
            place(redraw(image, size=case.size, offset_x=int(dx), offset_y=int(dy)))
            for image, (dx, dy) in zip(test.images[:300, ..., 0], shifts, strict=True)
        ]
        clean[f"drawn {case.name}"] = np.stack(drawn)[..., None]
    false = [
        {"detector": name, "images": kind, "flagged": rate(~unseen(images))}
        for name, unseen in detectors.items()
        for kind, images in clean.items()
    ]
    for row in false:
        print(row, flush=True)

    right = np.flatnonzero(
        logits(standard, test.images[: 2 * count]).argmax(1) == test.labels[: 2 * count]
    )
    chosen = test.take(right[:count])
    x, y = to_batch(chosen.images), torch.from_numpy(chosen.labels.copy())
    unknowing = []
    for name, config in UNKNOWING:
        attack = ATTACKS[name](**config)
        result = attack.run(Nets.of(standard, x), x, y, seed=0, index=torch.arange(len(x)))
        sent = as_sent(result.x_adv)
        wrong = logits(standard, sent).argmax(1) != chosen.labels
        row = {"attack": name, **config, "wrong": rate(wrong)}
        row |= {
            kind: rate(~unseen(sent)[wrong]) if wrong.any() else None
            for kind, unseen in detectors.items()
        }
        unknowing.append(row)
        print(row, flush=True)

    x, y = x[:few], y[:few]
    box = (x.amax(3, keepdim=True) > 0) & (x.amax(2, keepdim=True) > 0)
    views: dict[str, tuple[list[Net], Any, Tensor | float]] = {
        "none": ([standard], lambda sent: np.ones(len(sent), bool), 1.0),
        "squeeze": (
            [standard, lambda x: standard(OneBit.apply(x)), lambda x: standard(smoothed(x))],
            squeeze_unseen,
            1.0,
        ),
        "second model": ([standard, robust], second_unseen, 1.0),
        "box": ([standard], box_unseen, box.float()),
        "none, robust-0.3 served": ([robust], lambda sent: np.ones(len(sent), bool), 1.0),
    }
    aware = []
    for name, (seen_by, unseen, allowed) in views.items():
        for norm, epsilon in BALLS:
            done = knowing(seen_by, x, y, norm, epsilon, unseen, allowed)
            aware.append({"detector": name, "norm": norm, "epsilon": epsilon, "unseen": rate(done)})
            print(aware[-1], flush=True)
    return {
        "threshold": threshold,
        "calibrated_on": len(validation),
        "false_alarms": false,
        "unknowing": unknowing,
        "knowing": aware,
        "microseconds": microseconds(test),
        "models": {name: load(name).digest for name in ("standard", "robust-0.3")},
        "data": {"name": "mnist", "digest": mnist.digest},
    }


def rate(flags: NDArray[np.bool_]) -> dict[str, Any]:
    """Return how many of the flags are set."""
    return Rate.of(int(flags.sum()), len(flags)).to_json()


def microseconds(test: ImageSet) -> dict[str, float]:
    """Return what each costs the app for an image, in processor time, the least of five turns."""
    standard, robust = Engine.load("standard"), Engine.load("robust-0.3")
    images = test.images[:500]

    def one_by_one(ask: Callable[[Pixels], object]) -> float:
        least = float("inf")
        for _ in range(5):
            before = time.process_time()
            for image in images:
                ask(image[None])
            least = min(least, time.process_time() - before)
        return round(1e6 * least / len(images), 1)

    plain = one_by_one(standard._answers)
    return {
        "answer": plain,
        "squeeze": round(one_by_one(lambda image: distances(standard._answers, image)) - plain, 1),
        "of it, the squeezers": one_by_one(lambda image: (one_bit(image), median(image))),
        "second model": one_by_one(robust._answers),
        "box": one_by_one(lambda image: is_placed(image.tobytes())),
    }


def main() -> None:
    """Measure, and write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--knowing", type=int, default=100, help="images for those who know")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "inputs.json")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    content = measured(asked.images, asked.knowing)
    content |= {"versions": versions(), "machine": machine()}
    asked.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

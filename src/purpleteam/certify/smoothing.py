"""Randomized smoothing (Cohen et al. 2019, arXiv:1902.02918): L2 radii for any classifier.

The smoothed classifier answers what the base classifier answers most often under Gaussian noise of
deviation sigma. If a label's share is at least p > 1/2, no change of L2 norm below
sigma * Phi^-1(p) takes the majority from it (theorem 1). p is a lower confidence bound from
samples: each certificate holds with probability at least 1 - `failure_probability` over the noise.

An image's noise is a function of the seed and its index alone: not of its batch, nor its place.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.stats import beta, binomtest, norm
from torch import Tensor, nn

from purpleteam.attacks.driver import CACHED_VALUES, VALUES_ON_GPU
from purpleteam.certify.radii import Certificate, RadiusCertificate
from purpleteam.core.arrays import Ints
from purpleteam.core.digest import canonical_json, sha256_bytes
from purpleteam.core.errors import UsageError
from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.registry import check_ranges
from purpleteam.data.images import ImageSet, check_is_set
from purpleteam.models import devices
from purpleteam.models.guard import Classifier, guarded
from purpleteam.models.recipes import generator


@dataclass(frozen=True, kw_only=True)
class Smoothing:
    """Which smoothed classifier, and how sure its certificates are."""

    ranges: ClassVar[str] = (
        "sigma above 0 and finite; selection_samples at least 1; estimation_samples at least 1; "
        "failure_probability between 0 and 1; seed at least 0"
    )

    sigma: float = 0.25
    """Standard deviation of the noise, in pixel units of [0, 1]."""
    selection_samples: int = 100
    """Noisy copies that choose the label."""
    estimation_samples: int = 1000
    """Others that bound its share: the largest radius grows with them; papers take 100,000."""
    failure_probability: float = 0.001
    """Of each certificate, and of each answer."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(self)


def lower_bound(hits: int, samples: int, failure_probability: float) -> float:
    """Return what the true share is below with at most that probability, by Clopper-Pearson."""
    return float(beta.ppf(failure_probability, hits, samples - hits + 1)) if hits else 0.0


def certify_smoothing(
    model: Classifier,
    images: ImageSet,
    smoothing: Smoothing,
    *,
    digest: str = "",
    progress: Progress = SILENT,
) -> RadiusCertificate:
    """Certify the smoothed classifier of a model, whose digest is given, on images of any shape.

    The model may only answer, and its refusals vote for no label. Noisy images leave [0, 1].

    Raises:
        UsageError: there is no image.
        ModelError: the model's own code failed.
    """
    check_is_set(images)
    if not len(images):
        raise UsageError("there is no image to certify")
    started, found, device = time.process_time(), [], devices.device_of(model)
    samples, deviation = smoothing.estimation_samples, smoothing.sigma
    with progress.task("certify by smoothing", len(images)) as task:
        for i in range(len(images)):
            (x,) = devices.to_batch(images.images[i : i + 1], device)
            chosen, counted = _votes(model, x, i, smoothing, smoothing.selection_samples, samples)
            label = int(chosen.argmax())
            share = lower_bound(int(counted[label]), samples, smoothing.failure_probability)
            radius = deviation * float(norm.ppf(max(share, 0.5)))
            found.append(Certificate(label=label, radius=radius, abstained=share <= 0.5))
            task.advance()
    options = asdict(smoothing)
    claim = {"complete": False, "deterministic": False, "arithmetic": "real"}
    return RadiusCertificate(
        images=tuple(found),
        labels=images.labels,
        how={"method": "smoothing", "norm": "l2", **options, **claim},
        classifier=sha256_bytes(canonical_json({"model": digest, **options}).encode()),
        seconds=time.process_time() - started,
    )


def predict(
    model: Classifier, smoothing: Smoothing, x: Tensor, index: Sequence[int] | None = None
) -> tuple[int | None, ...]:
    """Return the smoothed classifier's answer to each image (N, C, H, W); None where it abstains.

    An answer is wrong with at most the failure probability: a two-sided binomial test tells the two
    labels with most votes apart (Hung and Fithian 2019, arXiv:1610.03944).
    """
    answers: list[int | None] = []
    for i, image in zip(range(len(x)) if index is None else index, x, strict=True):
        (votes,) = _votes(model, image, i, smoothing, smoothing.estimation_samples)
        first, second = np.argsort(-votes, kind="stable")[:2]
        most, both = int(votes[first]), int(votes[first] + votes[second])
        clear = both and binomtest(most, both).pvalue <= smoothing.failure_probability
        answers.append(int(first) if clear else None)
    return tuple(answers)


def _votes(
    model: Classifier, image: Tensor, index: int, smoothing: Smoothing, *stages: int
) -> list[Ints]:
    """Return the votes for each label in each stage; `stages` are their numbers of samples."""
    values, counts = VALUES_ON_GPU if image.is_cuda else CACHED_VALUES, []
    together = max(1, values // image.numel())
    key = (smoothing.seed, "smoothing", *stages, index)
    rng = generator(*key)
    with devices.frozen(model) as net, torch.no_grad(), devices.forked(image.device):
        torch.manual_seed(generator(*key, "model").initial_seed())  # a net may draw itself
        for samples in stages:
            votes = []
            for start in range(0, samples, together):
                # one by one: what torch draws at once depends on how much that is
                copies = range(min(together, samples - start))
                noise = torch.stack([torch.randn(image.shape, generator=rng) for _ in copies])
                scores = net(image + smoothing.sigma * noise.to(image.device))
                answers = scores.argmax(1)[~scores.isnan().any(1)]
                votes.append(torch.bincount(answers, minlength=scores.shape[1]))
            counts.append(np.asarray(torch.stack(votes).sum(0).cpu()))
    return counts


class Smoothed(nn.Module):
    """A smoothed classifier as attacks see it: log of the mean softmax over fresh noise.

    Its cross-entropy is the loss of SmoothAdv (Salman et al. 2019, arXiv:1906.04584, equation 6).
    """

    def __init__(self, model: Classifier, sigma: float, samples: int = 8) -> None:
        super().__init__()
        self.model = guarded(model)
        self.sigma, self.samples = sigma, samples

    def forward(self, x: Tensor) -> Tensor:
        draws = (x + self.sigma * torch.randn_like(x) for _ in range(self.samples))
        logs = torch.stack([self.model(noisy).log_softmax(1) for noisy in draws])
        return torch.logsumexp(logs, 0) - float(np.log(self.samples))

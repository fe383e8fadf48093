"""Randomized smoothing (Cohen et al. 2019, arXiv:1902.02918): L2 radii for any classifier.

The smoothed classifier answers what the base classifier answers most often under Gaussian noise of
deviation sigma. If a label's share is at least p > 1/2, no change of L2 norm below
sigma * Phi^-1(p) takes the majority from it (theorem 1, the others' share bounded by 1 - p). p is a
lower confidence bound from samples, so each certificate holds with probability at least
1 - `failure_probability` over the noise. A refusal of the base classifier is no vote for any label.

An image's noise is a function of the seed and its index alone: not of its batch, nor its place.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.stats import beta, binomtest, norm
from torch import Tensor, nn

from purpleteam.attacks.driver import CACHED_VALUES, VALUES_ON_GPU
from purpleteam.attacks.evasion import EvasionAttack
from purpleteam.certify.radii import Certificate, RadiusCertificate
from purpleteam.core.arrays import Ints
from purpleteam.core.digest import canonical_json, sha256_bytes
from purpleteam.core.errors import UsageError
from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.registry import check_ranges
from purpleteam.data.images import ImageSet, check_is_set
from purpleteam.models import devices
from purpleteam.models.guard import Classifier, Guarded, guarded
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

    def certified(self, label: int, hits: int) -> Certificate:
        """Return the certificate of a label that `hits` of the estimation samples got."""
        share = lower_bound(hits, self.estimation_samples, self.failure_probability)
        if share <= 0.5:
            return Certificate(label=label, radius=0.0, abstained=True)
        return Certificate(label=label, radius=self.sigma * float(norm.ppf(share)))

    def digest(self, model: str) -> str:
        """Return the digest of the smoothed classifier of a model, given by its own digest."""
        return sha256_bytes(canonical_json({"model": model, **asdict(self)}).encode())


def lower_bound(hits: int, samples: int, failure_probability: float) -> float:
    """Return a share that the true one is below with no more than that probability.

    One-sided, after Clopper and Pearson (1934, doi:10.1093/biomet/26.4.404).
    """
    return float(beta.ppf(failure_probability, hits, samples - hits + 1)) if hits else 0.0


def certify_smoothing(
    model: Classifier,
    images: ImageSet,
    smoothing: Smoothing,
    *,
    digest: str = "",
    progress: Progress = SILENT,
) -> RadiusCertificate:
    """Certify the smoothed classifier of a model on images; the model is left alone.

    Args:
        model: images (N, C, H, W) to logits or labels; noisy ones leave [0, 1] and are not clipped,
            unless the model does so.
        images: of any shape that the model takes.
        smoothing: noise, samples and certainty.
        digest: of the model.
        progress: counts images.

    Raises:
        UsageError: there is no image.
        ModelError: the model's own code failed.
    """
    check_is_set(images)
    if not len(images):
        raise UsageError("there is no image to certify")
    started, found = time.process_time(), []
    stages = (smoothing.selection_samples, smoothing.estimation_samples)
    device = devices.device_of(model)
    each = (devices.to_batch(images.images[i : i + 1], device)[0] for i in range(len(images)))
    with progress.task("certify by smoothing", len(images)) as task:
        for chosen, counted in _votes(model, each, range(len(images)), smoothing, *stages):
            label = int(chosen.argmax())
            found.append(smoothing.certified(label, int(counted[label])))
            task.advance()
    return RadiusCertificate(
        method="smoothing",
        images=tuple(found),
        labels=images.labels,
        classifier=smoothing.digest(digest),
        how=asdict(smoothing),
        claim={"complete": False, "deterministic": False, "arithmetic": "real"},
        seconds=time.process_time() - started,
    )


def predict(
    model: Classifier, x: Tensor, smoothing: Smoothing, *, index: Sequence[int] | None = None
) -> tuple[int | None, ...]:
    """Return the smoothed classifier's answer to each image (N, C, H, W); None where it abstains.

    An answer is wrong with no more than the failure probability: the two labels with most votes are
    told apart by a two-sided binomial test (Hung and Fithian 2019, arXiv:1610.03944).
    """
    answers: list[int | None] = []
    places = range(len(x)) if index is None else index
    for (votes,) in _votes(model, iter(x), places, smoothing, smoothing.estimation_samples):
        first, second = np.argsort(-votes, kind="stable")[:2]
        most, both = int(votes[first]), int(votes[first] + votes[second])
        clear = both and binomtest(most, both).pvalue <= smoothing.failure_probability
        answers.append(int(first) if clear else None)
    return tuple(answers)


def _votes(
    model: Classifier,
    images: Iterator[Tensor],
    index: Sequence[int],
    smoothing: Smoothing,
    *stages: int,
) -> Iterator[list[Ints]]:
    """Yield for each image how often each label was answered in each stage of so many samples."""
    for number, image in zip(index, images, strict=True):
        with devices.frozen(model) as net, torch.no_grad(), devices.forked(image.device):
            key = (smoothing.seed, "smoothing", *stages, number)
            torch.manual_seed(generator(*key, "model").initial_seed())  # a net may draw itself
            rng = generator(*key)
            votes = [_counted(net, image, smoothing.sigma, samples, rng) for samples in stages]
        yield votes


def _counted(net: Guarded, image: Tensor, sigma: float, samples: int, rng: torch.Generator) -> Ints:
    values = VALUES_ON_GPU if image.is_cuda else CACHED_VALUES
    together, parts = max(1, values // image.numel()), []
    for start in range(0, samples, together):
        # one draw a copy: torch's numbers in one draw of many depend on how many they are
        copies = range(min(together, samples - start))
        noise = torch.stack([torch.randn(image.shape, generator=rng) for _ in copies])
        scores = net(image + sigma * noise.to(image.device))
        answers = scores.argmax(1)[~scores.isnan().any(1)]
        parts.append(torch.bincount(answers, minlength=scores.shape[1]))
    return np.asarray(torch.stack(parts).sum(0).cpu())


class Smoothed(nn.Module):
    """A smoothed classifier as attacks see it: log of the mean softmax over fresh noise.

    Its cross-entropy is the loss of SmoothAdv (Salman et al. 2019, arXiv:1906.04584, equation 6).
    It draws from torch's generator, so the attacks' engine takes it as a model that is random.
    """

    def __init__(self, model: Classifier, sigma: float, samples: int = 8) -> None:
        super().__init__()
        self.model = guarded(model)
        self.sigma, self.samples = sigma, samples

    def forward(self, x: Tensor) -> Tensor:
        draws = (x + self.sigma * torch.randn_like(x) for _ in range(self.samples))
        logs = torch.stack([self.model(noisy).log_softmax(1) for noisy in draws])
        return torch.logsumexp(logs, 0) - float(np.log(self.samples))


@dataclass(frozen=True, kw_only=True)
class Contradiction:
    """An image near a certified one that the smoothed classifier calls something else."""

    index: int
    certified: int
    answer: int
    distance: float
    """L2; the certified radius is larger."""


def contradictions(
    model: Classifier,
    images: ImageSet,
    certificate: RadiusCertificate,
    smoothing: Smoothing,
    attack: EvasionAttack,
) -> tuple[Contradiction, ...]:
    """Attack the smoothed classifier inside its certified radii, and return what stands.

    Each image whose radius is above the attack's epsilon is attacked, its certified label held for
    right. What the attack finds counts where `predict` gives another answer: sound certificates
    leave no more of these than the failure probability explains.
    """
    if attack.norm != "l2":
        raise UsageError(f"the radii of smoothing are in l2, not {attack.norm}, as of the attack")
    held = certificate.images
    index = [i for i, c in enumerate(held) if not c.abstained and c.radius > attack.epsilon]
    if not index:
        return ()
    device = devices.device_of(model)
    x = devices.to_batch(images.images[index], device)
    labels = [held[i].label for i in index]
    y, places = torch.tensor(labels, device=device), torch.tensor(index)
    noisy = Smoothed(model, smoothing.sigma)
    x_adv = attack(noisy, x, y, seed=smoothing.seed, index=places)
    answers = predict(model, x_adv, smoothing, index=index)
    far = (x_adv - x).flatten(1).norm(dim=1).tolist()
    return tuple(
        Contradiction(index=i, certified=label, answer=answer, distance=distance)
        for i, label, answer, distance in zip(index, labels, answers, far, strict=True)
        if answer is not None and answer != label
    )

"""Randomized smoothing against the closed form: of a linear net the radius is the distance."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from torch import Tensor, nn

from purpleteam.attacks.evasion import ATTACKS
from purpleteam.certify.radii import (
    Certificate,
    RadiusCertificate,
    contradictions,
)
from purpleteam.certify.smoothing import (
    Smoothed,
    Smoothing,
    certify_smoothing,
    lower_bound,
    predict,
)
from purpleteam.core.errors import UsageError
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import to_batch

SHAPE = (5, 4, 3)  # height, width, channels
WAY = torch.linspace(-1, 1, 60) / torch.linspace(-1, 1, 60).norm()  # a unit vector


class Plane(nn.Module):
    """Two classes with a plane between: the scores' difference is the signed distance to it."""

    def __init__(self, offset: float = 0.0) -> None:
        super().__init__()
        self.offset = offset

    def forward(self, x: Tensor) -> Tensor:
        distance = (x - 0.5).flatten(1) @ WAY - self.offset
        return torch.stack([-distance, distance], 1) / 2


def random_images(n: int) -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (n, *SHAPE)).astype(np.uint8)
    labels = Plane()(to_batch(pixels)).argmax(1).numpy()
    return ImageSet(pixels, labels)


def distances(images: ImageSet) -> np.ndarray:
    """Return how far each image is from the plane: the exact radius of the smoothed classifier."""
    scores = Plane()(to_batch(images.images))
    return (scores[:, 1] - scores[:, 0]).abs().numpy()


def radii(certificate: RadiusCertificate) -> list[float]:
    return [image.radius for image in certificate.images]


@pytest.mark.parametrize("sigma", [0.1, 0.5])
def test_no_certified_radius_is_beyond_the_plane(sigma: float) -> None:
    images = random_images(40)
    proved = certify_smoothing(Plane(), images, Smoothing(sigma=sigma))
    assert np.all(np.array(radii(proved)) <= distances(images))
    assert all(c.abstained or c.label == y for c, y in zip(proved.images, images.labels))


def test_many_samples_come_near_the_exact_radius() -> None:
    images = random_images(4)
    exact = distances(images)
    proved = certify_smoothing(Plane(), images, Smoothing(sigma=0.3, estimation_samples=30_000))
    assert exact.max() < 0.9  # no share so near 1 that 30,000 samples cannot tell it
    assert np.allclose(radii(proved), exact, atol=0.02)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400), st.data(), st.sampled_from([0.001, 0.05, 0.3]))
def test_the_lower_bound_is_that_of_the_exact_binomial_test(
    samples: int, data: st.DataObject, failure: float
) -> None:
    hits = data.draw(st.integers(0, samples))
    test = binomtest(hits, samples, alternative="greater")
    exact = test.proportion_ci(1 - failure, method="exact").low
    assert lower_bound(hits, samples, failure) == pytest.approx(exact, abs=1e-9)


def test_all_samples_alike_give_the_largest_radius_that_so_many_can() -> None:
    images = ImageSet(np.zeros((1, *SHAPE), np.uint8), np.ones(1, np.int64))
    (found,) = certify_smoothing(Plane(-50.0), images, Smoothing(sigma=0.25)).images
    assert found == Certificate(label=1, radius=pytest.approx(0.25 * 2.462, abs=1e-3))


def test_fewer_accurate_images_are_left_at_a_larger_radius() -> None:
    proved = certify_smoothing(Plane(), random_images(30), Smoothing(sigma=0.25))
    told = json.loads(json.dumps(proved.to_json([0.3])))
    curve = [stage["certified_accuracy"]["value"] for stage in told["stages"]]
    assert curve == sorted(curve, reverse=True)
    assert curve[0] > curve[1] > 0 == curve[-1]


def test_on_the_plane_it_abstains_and_that_is_not_right() -> None:
    images = ImageSet(np.full((1, *SHAPE), 51, np.uint8), np.zeros(1, np.int64))
    offset = float((to_batch(images.images) - 0.5).flatten(1) @ WAY)
    proved = certify_smoothing(Plane(offset), images, Smoothing())
    assert proved.images[0].abstained and proved.to_json([1.0])["abstained"] == 1
    assert proved.counts(0) == {"verified": 0, "falsified": 0, "unknown": 1}
    assert predict(Plane(offset), Smoothing(), to_batch(images.images)) == (None,)


def test_an_image_has_the_same_certificate_alone_and_among_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images, smoothing = random_images(6), Smoothing(sigma=0.4, estimation_samples=150)
    whole = certify_smoothing(Plane(), images, smoothing).images
    monkeypatch.setattr("purpleteam.certify.smoothing.CACHED_VALUES", 60 * 7)  # 7 copies at a time
    assert certify_smoothing(Plane(), images, smoothing).images == whole
    assert certify_smoothing(Plane(), images.first(2), smoothing).images == whole[:2]


def test_a_prediction_does_not_depend_on_the_place_in_the_batch() -> None:
    x, smoothing = to_batch(random_images(12).images), Smoothing(sigma=0.6, estimation_samples=60)
    whole = predict(Plane(), smoothing, x)
    assert None in whole and len(set(whole)) > 1
    assert predict(Plane(), smoothing, x[8:], range(8, 12)) == whole[8:]


def test_another_seed_is_another_smoothed_classifier() -> None:
    images, smoothing = random_images(5), Smoothing(sigma=0.4)
    first, second = (
        certify_smoothing(Plane(), images, replace(smoothing, seed=seed), digest="sha256:0")
        for seed in (0, 1)
    )
    assert first.classifier != second.classifier
    assert radii(first) != radii(second)


def test_a_refusal_is_no_vote() -> None:
    def mostly_refusing(x: Tensor) -> Tensor:
        scores = torch.tensor([[0.0, 1.0, 0.0]]).repeat(len(x), 1)
        scores[torch.arange(len(x)) % 4 > 0] = torch.nan
        return scores

    images = ImageSet(np.zeros((1, *SHAPE), np.uint8), np.ones(1, np.int64))
    (found,) = certify_smoothing(mostly_refusing, images, Smoothing()).images
    assert found == Certificate(label=1, radius=0.0, abstained=True)


def test_equal_images_in_two_places_get_noise_of_their_own() -> None:
    image = random_images(4).images[3:]
    twice = ImageSet(np.concatenate([image, image]), np.zeros(2, np.int64))
    first, second = certify_smoothing(Plane(), twice, Smoothing(sigma=0.4)).images
    assert first.radius != second.radius


def contradicted(
    images: ImageSet, proved: RadiusCertificate, smoothing: Smoothing, epsilon: float
) -> tuple[int, ...]:
    return contradictions(
        images,
        proved,
        ATTACKS["pgd"](norm="l2", epsilon=epsilon, steps=10),
        Smoothed(Plane(), smoothing.sigma),
        partial(predict, Plane(), smoothing),
    )


def test_no_attack_finds_another_answer_inside_a_certified_radius() -> None:
    images, smoothing = random_images(20), Smoothing(sigma=0.25)
    proved = certify_smoothing(Plane(), images, smoothing)
    assert proved.counts(0.2)["verified"] > 3
    assert contradicted(images, proved, smoothing, 0.2) == ()


def test_a_radius_that_is_too_large_is_contradicted_by_an_attack() -> None:
    images, smoothing = random_images(20), Smoothing(sigma=0.25)
    proved = certify_smoothing(Plane(), images, smoothing)
    planted = replace(proved, images=tuple(replace(c, radius=2 * c.radius) for c in proved.images))
    found = contradicted(images, planted, smoothing, 0.5)
    assert found and np.all(distances(images)[list(found)] < 0.5)


def test_an_abstention_contradicts_nothing() -> None:
    images = random_images(8)
    proved = certify_smoothing(Plane(), images, Smoothing())
    within = [i for i, one in enumerate(proved.images) if one.radius > 0.1]
    attack = ATTACKS["pgd"](norm="l2", epsilon=0.1, steps=1)

    def told(*answers: int | None) -> tuple[int, ...]:
        def answer(_: Tensor, index: Sequence[int]) -> list[int | None]:
            return [answers[proved.images[i].label] for i in index]

        return contradictions(images, proved, attack, Plane(), answer)

    assert within and told(1, 0) == tuple(within)
    assert told(0, 1) == told(None, None) == ()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("sigma", 0.0),
        ("sigma", float("inf")),
        ("estimation_samples", 0),
        ("failure_probability", 1),
    ],
    ids=["no noise", "endless noise", "no samples", "sure to fail"],
)
def test_a_senseless_option_is_named(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=option):
        Smoothing(**{option: value})


def test_no_images_and_another_norm_are_refused() -> None:
    images, smoothing = random_images(2), Smoothing()
    with pytest.raises(UsageError, match="no image"):
        certify_smoothing(Plane(), images.part(0, 0), smoothing)
    proved = certify_smoothing(Plane(), images, smoothing)
    with pytest.raises(UsageError, match="radii are in l2, the attack is in linf"):
        contradictions(images, proved, ATTACKS["pgd"](), Plane())

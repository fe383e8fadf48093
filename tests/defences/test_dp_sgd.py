"""Training with differential privacy: clipped, noised sums, what is spent, and who is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from purpleteam.core.errors import UsageError
from purpleteam.data.images import Dataset
from purpleteam.defences import DEFENCES, Hardening
from purpleteam.defences.training import _per_example
from purpleteam.defences.training._mixing import refuse_mixing
from purpleteam.defences.training._per_example import PrivateSteps
from purpleteam.defences.training.dp_sgd import DPSGD, epsilon_of, noise_for
from purpleteam.models import Training, build
from purpleteam.models.guard import guarded
from purpleteam.models.inference import logits

SHAPE = (1, 28, 28)


def small(seed: int = 0) -> nn.Module:
    return build("small_cnn", SHAPE, 10, seed=seed)


def steps_of(net: nn.Module, **changes: Any) -> PrivateSteps:
    given = {"images": 60, "batch_size": 20, "noise_multiplier": 1e-9, "max_grad_norm": 0.5}
    return PrivateSteps(guarded(net), augmented=False, **given | changes)


def images(n: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return torch.rand(n, *SHAPE, generator=rng), torch.randint(10, (n,), generator=rng)


def flat(parts: Iterable[Tensor | None]) -> Tensor:
    return torch.cat([part.flatten() for part in parts if part is not None])


def taken(steps: PrivateSteps, rows: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of a step that has drawn these rows."""
    steps.batches(torch.arange(60), torch.Generator().manual_seed(0))
    with steps.hooked():
        steps.gradients(rows, lambda rows: (x[rows], y[rows]))
    return flat(weight.grad for weight in steps.weights)


@pytest.mark.parametrize("arch", ["small_cnn", "classic_cnn", "scattering"])
def test_a_step_is_the_sum_of_clipped_gradients_over_the_expected_batch(
    arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_per_example, "AT_ONCE", 1 << 18)  # in parts of a few images
    net, (x, y), whole = build(arch, SHAPE, 10, seed=0), images(60), torch.zeros(())
    for image, label in zip(x[:7], y[:7], strict=True):
        loss = F.cross_entropy(net(image[None]), label[None])
        slope = flat(torch.autograd.grad(loss, list(net.parameters())))
        whole = whole + slope * min(1.0, 0.5 / float(slope.norm()))
    found = taken(steps_of(net), torch.arange(7), x, y)
    torch.testing.assert_close(found, whole / 20, atol=1e-6, rtol=1e-3)


def test_a_step_that_drew_no_image_is_noise_of_the_stated_size() -> None:
    nothing = torch.arange(0)
    values = taken(steps_of(small(), noise_multiplier=3.0), nothing, *images(60))
    assert float(values.std()) == pytest.approx(3.0 * 0.5 / 20, rel=0.02)
    assert abs(float(values.mean())) < 0.002


def test_batches_are_poisson_samples() -> None:
    steps = steps_of(small(), images=6000, batch_size=600)
    drawn = steps.batches(torch.arange(6000), torch.Generator().manual_seed(1))
    sizes = torch.tensor([len(one) for one in drawn], dtype=torch.float)
    assert len(drawn) == 10 and len(set(sizes.tolist())) > 5
    assert float(sizes.mean()) == pytest.approx(600, abs=25)
    assert all(len(set(one.tolist())) == len(one) for one in drawn)
    counts = torch.bincount(torch.cat([*drawn]), minlength=6000)
    assert int(counts.max()) > 3 and int((counts == 0).sum()) > 1500  # 0.9^10 of them: 2092


@pytest.fixture(scope="module")
def trained(digits: Dataset) -> Training:
    recipe = DPSGD(epsilon=8.0, epochs=12, batch_size=250, learning_rate=5e-3)
    return recipe.harden(Hardening(net=small(), dataset=digits))


def test_it_learns(trained: Training) -> None:
    assert trained.best.epoch == 12 and trained.best.validation_accuracy > 0.5


def test_what_is_told_of_each_epoch_is_of_validation_images(
    trained: Training, digits: Dataset
) -> None:
    labels = torch.tensor(digits.validation.labels)
    scores = torch.tensor(logits(trained.module, digits.validation.images))
    loss = F.cross_entropy(scores, labels)
    assert trained.epochs[-1].loss == pytest.approx(float(loss), rel=1e-4)


def test_what_is_spent_is_told_with_all_that_it_hangs_on(
    trained: Training, digits: Dataset
) -> None:
    told, n = trained.facts["privacy"], len(digits.train)
    rate, steps = 250 / n, 12 * -(-n // 250)
    assert (told["sampling"], told["sampling_rate"], told["steps"]) == ("poisson", rate, steps)
    spent = epsilon_of(told["noise_multiplier"], rate, steps, 1e-5, "prv")
    assert told["epsilon"] == pytest.approx(spent, abs=1e-5)
    assert 7.9 < told["epsilon"] <= 8.0
    assert told["normalised_by"] == "the expected batch, 250 images"
    assert (told["accountant"], told["delta"], told["opacus"][0]) == ("prv", 1e-5, "1")


def test_a_training_that_ends_early_has_spent_less(digits: Dataset) -> None:
    recipe = DPSGD(epochs=3, batch_size=500)
    found = recipe.harden(Hardening(net=small(), dataset=digits, budget_seconds=0))
    assert len(found.epochs) == 1
    assert found.facts["privacy"]["epsilon"] < 0.8 * recipe.epsilon


def test_nothing_of_the_training_stays_in_the_net(trained: Training) -> None:
    for layer in trained.module.modules():
        assert not layer._forward_hooks and not layer._backward_hooks
    for weight in trained.module.parameters():
        assert not {"grad_sample", "summed_grad"} & set(weight.__dict__)


def test_features_are_the_same_kept_or_made_each_time(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = dataclasses.replace(
        digits, train=digits.train.first(60), validation=digits.validation.first(20)
    )
    found = []
    for most in (_per_example.KEPT, 0):
        monkeypatch.setattr(_per_example, "KEPT", most)
        work = Hardening(net=build("scattering", SHAPE, 10, seed=0), dataset=few)
        found.append(DPSGD(epochs=2, batch_size=20).harden(work))
    kept, made = (next(one.module.parameters()) for one in found)
    torch.testing.assert_close(kept, made, atol=1e-5, rtol=1e-3)


def test_layers_that_work_in_place_are_no_obstacle(digits: Dataset) -> None:
    few = dataclasses.replace(digits, train=digits.train.first(60))
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.ReLU(inplace=True), nn.Linear(8, 10))
    DPSGD(epochs=1, batch_size=20).harden(Hardening(net=net, dataset=few))
    assert net[2].inplace


def test_a_noise_multiplier_that_spends_too_much_is_refused(digits: Dataset) -> None:
    recipe = DPSGD(noise_multiplier=0.5, epochs=2, batch_size=250)
    with pytest.raises(UsageError, match=r"noise_multiplier 0.5 spends epsilon \d+.* more than 3"):
        recipe.harden(Hardening(net=small(), dataset=digits))


def test_a_small_budget_is_kept_or_refused() -> None:
    assert epsilon_of(noise_for(0.05, 1e-5, 0.1, 100, "prv"), 0.1, 100, 1e-5, "prv") <= 0.05
    with pytest.raises(UsageError, match=r"no epsilon of 0.05 .*: give more .*accountant=prv"):
        noise_for(0.05, 1e-5, 0.1, 100, "rdp")


@pytest.mark.parametrize(
    "values", [{"precision": "fast"}, {"l1": 1e-5}, {"precise_batch_norm": True}, {"delta": 0.0}]
)
def test_what_would_break_the_bound_is_no_option(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(values))} must be"):
        DEFENCES["dp_sgd"](**values)


class Centred(nn.Module):
    """Takes the mean image away."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


class Counting(nn.Module):
    """Keeps the brightest pixel that it has seen."""

    brightest: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("brightest", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.brightest = torch.maximum(self.brightest, x.detach().max())
        return x


REFUSED = {
    "certified_cnn_bn": r"layer 2, a BatchNorm2d, .*: put nn.GroupNorm in its place, or --arch",
    "residual_cnn": r"layer 2, a BatchNorm2d, ",
}


@pytest.mark.parametrize("arch", REFUSED)
def test_batch_normalisation_is_refused_with_its_place(arch: str, digits: Dataset) -> None:
    work = Hardening(net=build(arch, SHAPE, 10, seed=0), dataset=digits)
    with pytest.raises(UsageError, match=REFUSED[arch]) as caught:
        DPSGD().harden(work)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("layer", "why"), [(Centred(), "mixes the images"), (Counting(), "keeps brightest of")]
)
def test_any_layer_that_mixes_or_keeps_images_is_refused(layer: nn.Module, why: str) -> None:
    net = nn.Sequential(nn.Identity(), nn.Sequential(layer), nn.Flatten(), nn.Linear(784, 10))
    kind = type(layer).__name__
    with pytest.raises(UsageError, match=rf"layer 1.0, a {kind}, {why}.*: take it out"):
        refuse_mixing(net, images(4)[0])


def test_group_normalisation_is_not_refused() -> None:
    body = [nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Dropout(), nn.LayerNorm(26)]
    refuse_mixing(nn.Sequential(*body, nn.Flatten()), images(4)[0])

"""EOT and BPDA: what looks robust without them falls with them."""

from __future__ import annotations

import pytest
import torch
from attack_models import images_of_the_middle, linear_net
from torch import Tensor, nn

from purpleteam.attacks import PGD
from purpleteam.attacks.wrappers import Averaged, BackwardPass
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import frozen, to_batch


def batch(images: ImageSet) -> tuple[Tensor, Tensor]:
    return to_batch(images.images), torch.from_numpy(images.labels.copy())


def few_levels(x: Tensor) -> Tensor:
    """Return the image in four shades: its gradient is 0 almost everywhere."""
    return (x * 3).round() / 3


def block_waves(x: Tensor) -> Tensor:
    """Return 4 x 4 blocks whose waves are rounded, as JPEG does to 8 x 8 ones."""
    n, c, h, w = x.shape
    places = torch.arange(4.0)
    wave = torch.cos(torch.pi * (2 * places[None] + 1) * places[:, None] / 8) / 2**0.5
    wave[0] /= 2**0.5
    blocks = x.view(n, c, h // 4, 4, w // 4, 4).transpose(3, 4)
    waves = (wave @ blocks @ wave.T * 2).round() / 2
    return (wave.T @ waves @ wave).transpose(3, 4).reshape(x.shape)


class Defended(nn.Module):
    """A net behind a transform, as it is deployed."""

    def __init__(self, transform: object, net: nn.Module) -> None:
        super().__init__()
        self.transform = transform
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(self.transform(x))  # type: ignore[operator]
        return out


@pytest.mark.parametrize("transform", [few_levels, block_waves])
def test_a_step_function_stops_pgd_and_not_bpda(
    standard: nn.Module, images: ImageSet, transform: object
) -> None:
    x, y = batch(images)
    attack = PGD(epsilon=0.25, steps=20)
    defended = Defended(transform, standard)
    seen_through = BackwardPass(transform, standard)  # type: ignore[arg-type]
    blind = int(attack.run(defended, x, y).broken.sum())
    found = attack.run(seen_through, x, y)
    assert blind < 30 and int(found.broken.sum()) > 55
    with torch.no_grad():  # and what is found holds for the model as it is deployed
        assert torch.equal(defended(found.x_adv).argmax(1) != y, found.broken)


def test_forward_it_is_the_defended_model_exactly(standard: nn.Module, images: ImageSet) -> None:
    x, _ = batch(images)
    wrapped = BackwardPass(few_levels, standard, substitute=torch.sigmoid)
    assert torch.equal(wrapped(x), standard(few_levels(x)))


def test_backward_it_is_the_substitute() -> None:
    net, x = linear_net(), images_of_the_middle(3).requires_grad_(True)
    for substitute, slope in ((None, 1.0), (lambda z: 3 * z, 3.0)):
        wrapped = BackwardPass(few_levels, net, substitute)
        (gradient,) = torch.autograd.grad(wrapped(x)[:, 1].sum(), x)
        expected = slope * net[1].weight[1].view(1, 1, 4, 4).expand_as(x)
        torch.testing.assert_close(gradient, expected)


class Shaken(nn.Module):
    """A net that moves its input at random: the same image gets another answer each time."""

    def __init__(self, net: nn.Module, sigma: float) -> None:
        super().__init__()
        self.net = net
        self.sigma = sigma

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x + self.sigma * torch.randn_like(x))
        return out


def test_its_gradient_is_the_mean_gradient() -> None:
    net = nn.Sequential(linear_net(), nn.Tanh())
    x = images_of_the_middle(2).requires_grad_(True)
    shaken = Shaken(net, 0.1)
    with frozen(net):
        (mean,) = torch.autograd.grad(Averaged(shaken, samples=400)(x)[:, 0].sum(), x)
        (one,) = torch.autograd.grad(Averaged(shaken, samples=1)(x)[:, 0].sum(), x)
        many = x.repeat(4000, 1, 1, 1) + 0.1 * torch.randn(
            (8000, 1, 4, 4), generator=torch.Generator().manual_seed(1)
        )
        (truth,) = torch.autograd.grad(net(many)[:, 0].sum() / 4000, x)
    assert (mean - truth).norm() < 0.4 * (one - truth).norm()


def test_averaging_finds_what_noise_hides(standard: nn.Module, images: ImageSet) -> None:
    x, y = batch(images)
    attack = PGD(epsilon=0.08, steps=10)
    shaken = Shaken(standard, 0.5)
    judge = Averaged(shaken, samples=40, seed=99)

    def mean_errors(samples: int) -> int:
        x_adv = attack(Averaged(shaken, samples=samples), x, y)
        with torch.no_grad():
            return int((judge(x_adv).argmax(1) != y).sum())

    assert mean_errors(8) > mean_errors(1)


def test_its_draws_depend_on_seed_and_images_alone(standard: nn.Module, images: ImageSet) -> None:
    x, y = batch(images)
    shaken, state = Shaken(standard, 0.3), torch.get_rng_state()
    with torch.no_grad():
        first = Averaged(shaken, samples=3)(x)
        torch.rand(5)
        assert torch.equal(Averaged(shaken, samples=3)(x), first)
        assert not torch.equal(Averaged(shaken, samples=3, seed=1)(x), first)
        nearly = Averaged(shaken, samples=3)(x + 1e-6)
    assert (nearly - first).abs().max() > 1e-2  # another step of an attack meets other draws
    attack = PGD(epsilon=0.1, steps=3)
    wrapped = Averaged(shaken, samples=2)
    assert torch.equal(attack(wrapped, x, y), attack(wrapped, x, y))
    assert not torch.equal(torch.get_rng_state(), state)  # by the one draw above
    torch.set_rng_state(state)
    wrapped(x)
    assert torch.equal(torch.get_rng_state(), state)


def test_less_than_one_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="samples must be at least 1, not 0"):
        Averaged(linear_net(), samples=0)

"""Transfer: crafted on a surrogate, judged on the model; nothing else is asked of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from attack_models import linear_net
from safetensors.torch import save_model
from torch import Tensor, nn

from purpleteam.attacks.evasion.transfer import Transfer, crafted
from purpleteam.attacks.norms import Noise
from purpleteam.core.errors import UsageError
from purpleteam.data.images import Dataset, ImageSet
from purpleteam.models import RECIPES, build, train
from purpleteam.models.devices import to_batch


def other_net() -> nn.Module:
    return build("small_cnn", (1, 28, 28), 10, seed=5)


@pytest.fixture(scope="module")
def surrogate(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return how another small net is named, trained for itself."""
    recipe = RECIPES["plain"](epochs=3)
    trained = train(other_net(), digits.train, digits.validation, recipe, seed=5)
    weights = tmp_path_factory.mktemp("models") / "other.safetensors"
    save_model(trained.module, str(weights))
    return {"surrogate": f"{__name__}:other_net", "weights": str(weights)}


def batch(images: ImageSet) -> tuple[Tensor, Tensor]:
    return to_batch(images.images), torch.from_numpy(images.labels.copy())


class NoGradient(nn.Module):
    """Answers as the net does and shows no gradient."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x.detach())
        return out


def test_it_breaks_a_net_without_gradients_and_noise_does_not(
    standard: nn.Module, images: ImageSet, surrogate: dict[str, str]
) -> None:
    masked, (x, y) = NoGradient(standard), batch(images)
    found = Transfer(epsilon=0.2, **surrogate).run(masked, x, y)
    noise = 0.2 * Noise(0, torch.arange(len(x))).normal(x).sign()
    with torch.no_grad():
        by_noise = int((masked((x + noise).clamp(0, 1)).argmax(1) != y).sum())
    assert found.broken.sum() > by_noise + 10
    assert found.cost.backward == 0 and (found.queries <= 2).all()  # the second to be sure


def test_the_surrogate_is_climbed_beyond_its_first_error(
    standard: nn.Module, images: ImageSet
) -> None:
    x, y = batch(images)
    attack = Transfer(epsilon=0.2, steps=10, attack="bim")._inner()
    x_adv = crafted(standard, attack, x, y, Noise(0, torch.arange(len(x))))
    first = attack(standard, x, y)
    with torch.no_grad():
        margins = [
            nn.functional.cross_entropy(standard(one), y, reduction="none")
            for one in (x_adv, first)
        ]
    assert (margins[0] > margins[1] + 1).float().mean() > 0.8


def test_any_white_box_attack_can_be_chosen(
    standard: nn.Module, images: ImageSet, surrogate: dict[str, str]
) -> None:
    x, y = batch(images)
    for name, norm, epsilon in (("pgd", "linf", 0.2), ("fgsm", "linf", 0.2), ("bim", "l2", 4.0)):
        attack = Transfer(
            attack=name,
            norm=norm,  # type: ignore[arg-type]
            epsilon=epsilon,
            **surrogate,
        )
        assert attack.run(standard, x, y).broken.any()


@pytest.mark.parametrize("name", ["spatial", "universal", "patch", "transfer"])
def test_what_cannot_run_on_a_surrogate_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"attack '{name}' is none that runs on a surrogate"):
        Transfer(attack=name)


def test_an_unknown_attack_and_a_surrogate_for_other_images_are_named() -> None:
    with pytest.raises(UsageError, match="unknown attack 'pdg'"):
        Transfer(attack="pdg")
    x = torch.rand((2, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    with pytest.raises(UsageError, match=r"takes images \(1, 28, 28\), these are \(1, 4, 4\)"):
        Transfer(surrogate="standard")(linear_net(), x, torch.zeros(2, dtype=torch.int64))


def test_a_surrogate_of_ones_own_is_a_factory_with_weights(
    tmp_path: Path,
) -> None:
    weights = tmp_path / "net.safetensors"
    save_model(linear_net(), str(weights))
    attack = Transfer(
        epsilon=0.45, surrogate="attack_models:linear_net", weights=str(weights), steps=5
    )
    x = torch.rand((4, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = linear_net()(x).argmax(1)
    assert attack.run(linear_net(), x, y).broken.all()

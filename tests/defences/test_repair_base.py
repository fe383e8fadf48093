"""What every repair promises: the model stays, the same each time, and missing things are named."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from purpleteam.core.config import build as build_part
from purpleteam.core.errors import ConfigError, UsageError
from purpleteam.data.images import Dataset
from purpleteam.defences.repair import REPAIRS, Repairing
from purpleteam.models import RECIPES, build

every_repair = pytest.mark.parametrize("name", list(REPAIRS))


class Corner:
    """A white square in the corner."""

    def apply(self, x: Tensor) -> Tensor:
        x = x.clone()
        x[:, :, -4:, -4:] = 1
        return x


def net(seed: int = 0, architecture: str = "small_cnn") -> nn.Module:
    return build(architecture, (1, 28, 28), 10, seed=seed)


def work(digits: Dataset, **changes: object) -> Repairing:
    whole = Repairing(
        model=net(),
        net=lambda: net(1),
        train=digits.train.first(96),
        flagged=np.array([3, 1]),
        trusted=digits.validation.first(40),
        trigger=Corner(),
        target_label=7,
        recipe=RECIPES["plain"](epochs=1),
        validation=digits.validation.first(20),
    )
    return dataclasses.replace(whole, **changes)  # type: ignore[arg-type]


def repair(name: str, given: Repairing) -> nn.Module:
    short = {} if name == "retrain" else {"steps": 3}
    if name == "unlearn":
        short["rounds"] = 1  # what is left is looked for in another file's tests
    return build_part(REPAIRS[name], short, name).repair(given)


def weights(module: nn.Module) -> Tensor:
    return torch.cat([value.flatten().float() for value in module.state_dict().values()])


@every_repair
def test_the_given_model_is_left_as_it_was(name: str, digits: Dataset) -> None:
    model = net().train()
    next(model.parameters()).requires_grad_(False)
    before = weights(model).numpy().tobytes()
    mended = repair(name, work(digits, model=model))
    assert weights(model).numpy().tobytes() == before and model.training
    assert all(one.grad is None for one in model.parameters())
    kept = [one.requires_grad for one in model.parameters()]
    assert [one.requires_grad for one in mended.parameters()] == kept == [False] + 7 * [True]


@every_repair
def test_the_repaired_net_is_a_new_one_in_eval_mode(name: str, digits: Dataset) -> None:
    given = work(digits)
    mended = repair(name, given)
    assert mended is not given.model and not any(one.training for one in mended.modules())
    assert not torch.equal(weights(mended), weights(given.model))
    assert torch.isfinite(weights(mended)).all()
    assert mended.state_dict().keys() == given.model.state_dict().keys()


@every_repair
def test_it_is_a_pure_function_of_the_seed(name: str, digits: Dataset) -> None:
    first, again, other = (weights(repair(name, work(digits, seed=seed))) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


@every_repair
def test_it_neither_reads_nor_moves_the_global_chance(name: str, digits: Dataset) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = weights(repair(name, work(digits)))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(weights(repair(name, work(digits))), first)


@pytest.mark.parametrize("name", [one for one in REPAIRS if one != "retrain"])
def test_the_means_of_batch_normalisation_stay(name: str, digits: Dataset) -> None:
    given = work(digits, model=net(architecture="residual_cnn"))
    before, after = given.model.state_dict(), repair(name, given).state_dict()
    running = [one for one in before if "running" in one]
    assert running and all(torch.equal(before[one], after[one]) for one in running)


@every_repair
def test_what_is_missing_is_named_with_what_can_be_done_without_it(
    name: str, digits: Dataset
) -> None:
    for needed in REPAIRS[name].needs:
        given = work(digits, **{needed: None})
        with pytest.raises(UsageError, match=rf"repair '{name}' needs .+; with what is given: "):
            repair(name, given)


@pytest.mark.parametrize(
    ("name", "needed", "line"),
    [
        ("retrain", "flagged", "'retrain' needs flagged training images; with what is given: fine"),
        ("unlearn", "trigger", "'unlearn' needs a recovered trigger; with what is given: fine"),
        ("fine_tune", "trusted", "'fine_tune' needs trusted clean images; .* given: retrain$"),
    ],
)
def test_the_line_says_it_in_words(name: str, needed: str, line: str, digits: Dataset) -> None:
    with pytest.raises(UsageError, match=line):
        repair(name, work(digits, **{needed: None}))


def test_no_flagged_image_is_as_good_as_no_detector(digits: Dataset) -> None:
    with pytest.raises(UsageError, match="needs flagged training images"):
        repair("retrain", work(digits, flagged=np.array([], np.int64)))


@every_repair
def test_it_is_built_from_plain_values_and_refuses_others(name: str) -> None:
    assert REPAIRS[name]().name == name
    for values in ({"stepz": 3}, {"steps": 0}, {"learning_rate": 0}, {"held_out": 1}):
        with pytest.raises(ConfigError):
            build_part(REPAIRS[name], values, name)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("unlearn", {"weakest": 2.0}),
        ("unlearn", {"mixed": 1.1}),
        ("unlearn", {"temperature": 0}),
        ("unlearn", {"worsened": -0.1}),
        ("unlearn", {"size": 2}),
        ("unlearn", {"nearby": -1}),
        ("unlearn", {"restart": 0}),
        ("unlearn", {"guide": "stars"}),
        ("fine_prune", {"loss_of_accuracy": 1}),
        ("ft_sam", {"radius": 0}),
        ("i_bau", {"radius": 0}),
        ("i_bau", {"inner_steps": 0}),
    ],
)
def test_a_field_out_of_its_range_is_refused(name: str, values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        build_part(REPAIRS[name], values, name)


def test_retraining_needs_images_to_stop_by(digits: Dataset) -> None:
    with pytest.raises(UsageError, match="'retrain' needs validation or trusted images"):
        repair("retrain", work(digits, validation=None, trusted=None))


def test_unlearning_can_go_by_true_labels_and_without_anything_random(digits: Dataset) -> None:
    plain = {"steps": 3, "rounds": 1, "guide": "labels", "worsened": 0.0, "nearby": 0}
    unlearn = build_part(REPAIRS["unlearn"], plain, "unlearn")
    given = work(digits)
    assert not torch.equal(weights(unlearn.repair(given)), weights(given.model))


def test_a_trigger_that_does_nothing_can_be_unlearned_too(digits: Dataset) -> None:
    class Nothing:
        def apply(self, x: Tensor) -> Tensor:
            return x

    mended = repair("unlearn", work(digits, trigger=Nothing(), target_label=None))
    assert torch.isfinite(weights(mended)).all()

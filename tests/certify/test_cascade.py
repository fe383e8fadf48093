"""From the cheapest proof to a complete one: three outcomes, and no stage undoes another."""

from dataclasses import replace
from functools import cache
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from milp import TOLERANCE, least_margin
from tiny_nets import conv, dense
from torch import nn

from purpleteam.attacks.evaluate import evaluate
from purpleteam.attacks.evasion.pgd import PGD
from purpleteam.certify.ball import FALSIFIED, UNKNOWN, VERIFIED, BallCertificate
from purpleteam.certify.bounds import ball, intervals, margins
from purpleteam.certify.branch import branch
from purpleteam.certify.cascade import METHODS, certify_ball
from purpleteam.certify.network import network_of
from purpleteam.certify.onnx_writer import write_onnx
from purpleteam.core.errors import UsageError
from purpleteam.data.images import ImageSet
from purpleteam.models.black_box import session_of
from purpleteam.models.devices import to_batch

EPSILON = 0.1


@cache
def net() -> nn.Module:
    return dense(6, 10, 8, 4, seed=2, gain=2)


@cache
def images() -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 1, 6, 1), np.uint8)
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    labels = net()(x).argmax(1).numpy()
    labels[:2] = (labels[:2] + 1) % 4  # two that are wrong when clean
    return ImageSet(pixels, labels)


@cache
def certified(method: str) -> BallCertificate:
    return certify_ball(net(), images(), epsilon=EPSILON, method=method, seconds=30)


def test_branch_and_bound_agrees_with_the_exact_margin_on_every_image() -> None:
    network = network_of(net(), (1, 1, 6)).to(torch.float64)
    x = to_batch(images().images).double()
    verdicts = certified("complete").verdicts
    assert UNKNOWN not in verdicts
    for place, label in enumerate(torch.tensor(images().labels.astype(np.int64))):
        boxes = intervals(network, ball(x[place : place + 1], EPSILON))
        forms = margins(label[None], 4)[0]
        exact = min(least_margin(network, boxes, form) for form in forms)
        assert abs(exact) > TOLERANCE
        assert verdicts[place] == (VERIFIED if exact > 0 else FALSIFIED)


def test_a_later_method_keeps_what_an_earlier_one_proved() -> None:
    names = list(METHODS)
    for before, after in pairwise(names):
        assert (certified(after).margins >= certified(before).margins).all()
        proved = certified(before).verdicts == VERIFIED
        assert (certified(after).verdicts[proved] == VERIFIED).all()
    assert len({certified(name).counts[VERIFIED] for name in names}) > 1


def test_every_counterexample_lies_in_its_ball_and_errs() -> None:
    found = certified("complete")
    assert set(found.counterexamples) == set(np.flatnonzero(found.verdicts == FALSIFIED))
    for place, x_adv in found.counterexamples.items():
        clean = images().images[place].transpose(2, 0, 1) / 255
        assert np.abs(x_adv - clean).max() <= EPSILON + 1e-6
        assert x_adv.min() >= 0 and x_adv.max() <= 1
        assert int(net()(torch.from_numpy(x_adv)[None]).argmax()) != images().labels[place]


def test_what_is_verified_no_attack_breaks() -> None:
    attacked = evaluate(net(), images(), PGD(epsilon=EPSILON, steps=40))
    found = certified("crown")
    assert not (~attacked.robust & (found.verdicts == VERIFIED)).any()
    assert found.certified_accuracy.value <= attacked.robust_accuracy.value
    assert found.clean_accuracy == attacked.clean_accuracy


def test_an_image_that_is_wrong_when_clean_is_its_own_counterexample() -> None:
    found = certified("ibp")
    assert list(found.decided_by[:2]) == ["clean", "clean"]
    assert list(found.verdicts[:2]) == [FALSIFIED, FALSIFIED]


def test_the_outcomes_add_up_and_each_stage_tells_what_it_decided() -> None:
    found = certified("complete")
    assert sum(found.counts.values()) == len(images())
    decided = sum(stage.verified + stage.falsified for stage in found.stages)
    assert decided == (found.decided_by != "").sum() - 2
    assert [stage.name for stage in found.stages] == list(METHODS["complete"])


def test_a_certificate_is_in_float32_inside_an_autocast_too() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        found = certify_ball(net(), images(), epsilon=EPSILON, method="crown")
    np.testing.assert_array_equal(found.margins, certified("crown").margins)


def test_little_memory_changes_no_verdict() -> None:
    small = certify_ball(net(), images(), epsilon=EPSILON, method="crown", memory=1)
    assert (small.verdicts == certified("crown").verdicts).all()
    left = small.verdicts == UNKNOWN  # of others a margin is what was needed, or more
    np.testing.assert_allclose(small.margins[left], certified("crown").margins[left], atol=1e-4)


@pytest.mark.parametrize(
    ("memory", "proved"), [(1, False), (30_000, True), (10**9, True)], ids=["none", "two", "many"]
)
def test_branch_and_bound_keeps_to_its_memory(memory: int, proved: bool) -> None:
    row = int(np.flatnonzero(certified("complete").verdicts == VERIFIED)[0])
    network = network_of(net(), (1, 1, 6)).to(torch.float32)
    boxes = intervals(network, ball(to_batch(images().images[row : row + 1]), EPSILON))
    label = torch.tensor([int(images().labels[row])])
    found = branch(network, boxes, label, torch.arange(3), seconds=30, memory=memory)
    assert (found.proved, found.counterexample) == (proved, None)
    assert found.limit == ("" if proved else "memory")


def test_what_little_memory_leaves_unknown_is_noted() -> None:
    found = certify_ball(net(), images(), epsilon=EPSILON, method="complete", memory=1)
    left = found.counts[UNKNOWN]
    assert left > 0
    assert found.notes == (f"branch and bound left {left} images unknown at its limit of memory",)


def test_a_net_without_rectifiers_whose_bounds_are_loose_is_left_unknown() -> None:
    clips = nn.Sequential(nn.Flatten(), nn.Linear(1, 2), nn.ReLU6(), nn.Linear(2, 2))
    with torch.no_grad():  # the same number twice, one from the other: the lead is always 0.01
        clips[1].weight[:], clips[1].bias[:] = 12, -3
        clips[3].weight[:] = torch.tensor([[1.0, -1.0], [0, 0]])
        clips[3].bias[:] = torch.tensor([0.01, 0])
    one = ImageSet(np.full((1, 1, 1, 1), 128, np.uint8), np.zeros(1, np.int64))
    assert certify_ball(clips, one, epsilon=0.4, method="complete").verdicts == [UNKNOWN]


def test_a_convolution_is_certified_whatever_the_number_of_classes() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (6, 6, 6, 1), np.uint8)
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    shown = ImageSet(pixels, conv()(x).argmax(1).numpy())
    assert certify_ball(conv(), shown, epsilon=0.001).counts[VERIFIED] == 6


@pytest.mark.parametrize(
    ("method", "epsilon"),
    [("crwn", 0.1), ("ibp", -1.0), ("ibp", float("nan"))],
    ids=["name", "negative", "nan"],
)
def test_a_wrong_request_is_refused(method: str, epsilon: float) -> None:
    with pytest.raises(UsageError):
        certify_ball(net(), images(), epsilon=epsilon, method=method)


def test_corners_of_a_tiny_ball_are_never_beyond_a_verdict() -> None:
    small, corners = dense(3, 5, 3, seed=1), list(product((-1.0, 1.0), repeat=3))
    pixels = np.random.default_rng(2).integers(60, 190, (12, 1, 3, 1), np.uint8)
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    labels = small(x).argmax(1)
    found = certify_ball(small, ImageSet(pixels, labels.numpy()), epsilon=0.2, method="complete")
    for corner in corners:
        moved = (x + 0.2 * torch.tensor(corner).view(1, 1, 1, 3)).clamp(0, 1)
        wrong = (small(moved).argmax(1) != labels).numpy()
        assert not (wrong & (found.verdicts == VERIFIED)).any()


def test_a_counterexample_that_onnx_runtime_does_not_see_err_leaves_its_image_unknown() -> None:
    network = network_of(net(), (1, 1, 6)).to(torch.float32)
    session = session_of("net.onnx", write_onnx(network))
    clean, found = to_batch(images().images).numpy(), certified("complete")
    kept = found.replayed(session, images())
    assert (kept.verdicts == found.verdicts).all() and not kept.notes
    (place, *_) = (p for p in found.counterexamples if found.decided_by[p] != "clean")
    planted = replace(found, counterexamples={**found.counterexamples, place: clean[place]})
    left = planted.replayed(session, images())
    assert left.verdicts[place] == UNKNOWN and place not in left.counterexamples
    assert left.notes == ("1 counterexamples do not err in ONNX Runtime: their images are unknown",)


def test_complete_is_said_only_of_nets_that_branching_can_decide() -> None:
    assert certified("complete").complete and not certified("crown").complete
    pooled = nn.Sequential(nn.MaxPool2d((1, 2)), nn.Flatten(), nn.Linear(3, 4))
    assert not certify_ball(pooled, images(), epsilon=0.1, method="complete").complete

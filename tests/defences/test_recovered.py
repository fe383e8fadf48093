"""A recovered trigger does to an image what its kind says, and can be looked at and measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from purpleteam.core.errors import DataError
from purpleteam.defences.detection.recovered import KINDS, RecoveredTrigger

X = torch.rand((3, 2, 6, 5), generator=torch.Generator().manual_seed(0))
MASK = np.zeros((6, 5), np.float32)
MASK[1:3, 2:4] = 1
PATTERN = np.linspace(0, 1, 60, dtype=np.float32).reshape(2, 6, 5)


def of_kind(kind: str, flow: tuple[float, float] = (0.0, 0.0)) -> RecoveredTrigger:
    moved = np.broadcast_to(np.array(flow, np.float32), (6, 5, 2))
    parts = {
        "patch": {"mask": MASK, "pattern": PATTERN},
        "additive": {"pattern": PATTERN - 0.5},
        "warp": {"flow": moved},
    }
    return RecoveredTrigger(kind=kind, target_label=3, **parts[kind])  # type: ignore[arg-type]


def test_a_patch_replaces_its_pixels_and_no_others() -> None:
    stamped, hit = of_kind("patch").apply(X), torch.from_numpy(MASK) > 0
    assert torch.allclose(stamped[:, :, hit], torch.from_numpy(PATTERN)[:, hit].expand(3, -1, -1))
    assert torch.equal(stamped[:, :, ~hit], X[:, :, ~hit])


def test_an_addition_is_added_and_stays_a_picture() -> None:
    expected = np.clip(X.numpy() + PATTERN - np.float32(0.5), 0, 1)
    assert np.allclose(of_kind("additive").apply(X).numpy(), expected)


def test_a_warp_of_one_pixel_reads_the_neighbour() -> None:
    right = of_kind("warp", (1.0, 0.0)).apply(X)  # each pixel shows what was right of it
    down = of_kind("warp", (0.0, 1.0)).apply(X)
    assert torch.allclose(right[..., :-1], X[..., 1:], atol=1e-5)
    assert torch.allclose(down[..., :-1, :], X[..., 1:, :], atol=1e-5)


def test_a_warp_by_nothing_changes_nothing() -> None:
    assert torch.allclose(of_kind("warp").apply(X), X, atol=1e-5)


def test_a_patch_taken_away_leaves_the_background_in_its_place() -> None:
    fill = torch.full((2, 6, 5), 0.25)
    cleaned = of_kind("patch").without(of_kind("patch").apply(X), fill)
    hit = torch.from_numpy(MASK) > 0
    assert (cleaned[:, :, hit] == 0.25).all()
    assert torch.equal(cleaned[:, :, ~hit], X[:, :, ~hit])


def test_an_addition_taken_away_gives_the_image_back_where_nothing_was_clipped() -> None:
    x = 0.5 + 0.1 * (X - 0.5)
    trigger = RecoveredTrigger(kind="additive", target_label=0, pattern=0.4 * (PATTERN - 0.5))
    assert torch.allclose(trigger.without(trigger.apply(x), x[0]), x, atol=1e-6)


def test_a_warp_is_undone_within_the_borders() -> None:
    trigger = of_kind("warp", (1.0, 0.0))
    assert torch.allclose(
        trigger.without(trigger.apply(X), X[0])[..., 1:-1], X[..., 1:-1], atol=1e-5
    )


@pytest.mark.parametrize("kind", ["patch", "additive"])
def test_a_weakened_trigger_changes_an_image_by_its_share(kind: str) -> None:
    x = torch.full((1, 2, 6, 5), 0.5)
    whole = of_kind(kind)
    change = whole.apply(x) - x
    assert torch.allclose(whole.weakened(0.25).apply(x) - x, 0.25 * change, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_stays_in_range_and_draws_itself(kind: str) -> None:
    trigger = of_kind(kind, (0.7, -0.4))
    changed, picture = trigger.apply(X), trigger.picture()
    assert changed.shape == X.shape and 0 <= changed.min() and changed.max() <= 1
    assert picture.dtype == np.uint8 and picture.shape[:2] == (6, 5)


def test_a_patch_is_drawn_in_its_colours_on_grey() -> None:
    picture = of_kind("patch").picture()
    assert np.array_equal(picture[1, 2], np.rint(255 * PATTERN[:, 1, 2]))
    assert (picture[MASK == 0] == 128).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_trigger_comes_back_from_its_file(kind: str, tmp_path: Path) -> None:
    trigger = of_kind(kind, (0.5, 0.25))
    again = RecoveredTrigger.load(trigger.save(tmp_path / "trigger.safetensors"))
    assert torch.equal(again.apply(X), trigger.apply(X))
    assert (again.kind, again.target_label, again.source_labels) == (kind, 3, None)


def test_the_same_trigger_is_the_same_file_each_time(tmp_path: Path) -> None:
    trigger = of_kind("patch", (0.5, 0.25))
    files = [trigger.save(tmp_path / f"{n}.safetensors").read_bytes() for n in range(10)]
    assert len(set(files)) == 1


def test_a_file_that_holds_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.safetensors").write_bytes(b"no")
    with pytest.raises(DataError, match="holds no recovered trigger"):
        RecoveredTrigger.load(tmp_path / "no.safetensors")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "smell"}, "kind must be one of patch, additive, warp"),
        ({"kind": "patch", "mask": MASK}, "needs a pattern"),
        ({"kind": "warp"}, "needs a flow"),
        ({"kind": "additive", "pattern": MASK}, r"\(C, H, W\)"),
        ({"kind": "patch", "mask": PATTERN, "pattern": PATTERN}, r"\(H, W\)"),
        ({"kind": "warp", "flow": PATTERN}, r"\(H, W, 2\)"),
    ],
)
def test_a_trigger_without_what_it_needs_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RecoveredTrigger(target_label=0, **fields)

"""A killed evaluation goes on where it was, and another one never takes its batches for its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import Tensor, nn

from purpleteam.attacks import FGSM, PGD, curve, evaluate
from purpleteam.attacks.evaluate import Journal
from purpleteam.data.images import ImageSet

LADDER = (FGSM(epsilon=0.03), PGD(epsilon=0.03, steps=5))


class Killed(BaseException):
    """Ends what runs, as Ctrl-C does; an Exception would be a fault of the model."""


class Mortal(nn.Module):
    """A net that dies after so many calls; `calls` counts them."""

    def __init__(self, net: nn.Module, life: int) -> None:
        super().__init__()
        self.net, self.life, self.calls = net, life, 0

    def __deepcopy__(self, memo: object) -> nn.Module:
        raise RuntimeError("so that every call is seen")

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > self.life:
            raise Killed
        out: Tensor = self.net(x)
        return out


@pytest.mark.parametrize("life", [8, 13, 20])
def test_a_killed_evaluation_ends_as_one_that_ran_through(
    standard: nn.Module, images: ImageSet, tmp_path: Path, life: int
) -> None:
    journal = Journal(tmp_path / "journal")
    with pytest.raises(Killed):
        evaluate(Mortal(standard, life), images, *LADDER, batch_size=20, journal=journal)
    whole = evaluate(Mortal(standard, 10**9), images, *LADDER, batch_size=20)
    again = Mortal(standard, 10**9)
    resumed = evaluate(again, images, *LADDER, batch_size=20, journal=journal)
    assert np.array_equal(resumed.broken_by, whole.broken_by)
    assert np.array_equal(resumed.x_adv, whole.x_adv)
    assert np.array_equal(resumed.queries, whole.queries)
    assert resumed.attacks == whole.attacks and resumed.cost["forward"] == whole.cost["forward"]


def test_what_is_done_is_not_done_again(
    standard: nn.Module, images: ImageSet, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "journal")
    first, second = Mortal(standard, 10**9), Mortal(standard, 10**9)
    evaluate(first, images, *LADDER, batch_size=20, journal=journal)
    assert journal.batches > 1
    evaluate(second, images, *LADDER, batch_size=20, journal=journal)
    assert second.calls < first.calls / 2  # it looks at the clean images and compares the twins
    journal.remove()
    assert journal.batches == 0 and not journal.folder.exists()


def test_each_radius_of_a_curve_keeps_its_own(
    standard: nn.Module, images: ImageSet, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "journal")
    radii, attacks = [0.01, 0.05], [PGD(steps=3)]
    kept = curve(standard, images, attacks, radii, journal=journal)
    again = curve(standard, images, attacks, radii, journal=journal)
    alone = curve(standard, images, attacks, radii)
    for radius in radii:
        assert np.array_equal(again[radius].x_adv, alone[radius].x_adv)
        assert np.array_equal(kept[radius].x_adv, alone[radius].x_adv)


def test_other_facts_open_another_journal(tmp_path: Path) -> None:
    one = Journal.of({"model": "sha256:1", "seed": 0}, tmp_path)
    assert Journal.of({"seed": 0, "model": "sha256:1"}, tmp_path).folder == one.folder
    assert Journal.of({"model": "sha256:2", "seed": 0}, tmp_path).folder != one.folder


def test_a_damaged_batch_is_done_again(tmp_path: Path) -> None:
    journal, index = Journal(tmp_path), np.arange(3)
    journal.save(0, index, {"broken": np.array([True, False, True])})
    (file,) = tmp_path.iterdir()
    assert journal.load(0, index) is not None and journal.load(1, index) is None
    file.write_bytes(file.read_bytes()[:50])
    assert journal.load(0, index) is None


def test_a_folder_that_cannot_be_written_stops_nothing(
    standard: nn.Module, images: ImageSet, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    journal = Journal(tmp_path / "file" / "journal")
    evaluate(standard, images.first(5), FGSM(epsilon=0.03), journal=journal)
    assert journal.batches == 0

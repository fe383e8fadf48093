"""A model may learn a random fraction of the training images, as shadow models do."""

from pathlib import Path

import numpy as np
import pytest

from purpleteam import verbs
from purpleteam.core.errors import UsageError
from purpleteam.data.images import Dataset
from purpleteam.data.sources.digits import load_digits

DIGITS = load_digits()


def test_a_share_of_the_training_images_is_drawn_by_the_seed_and_keeps_their_order() -> None:
    first, again, other = (DIGITS.train.share(0.5, seed) for seed in (1, 1, 2))
    assert first.digest == again.digest != other.digest
    assert len(first) == round(len(DIGITS.train) / 2)
    rows = [row.tobytes() for row in DIGITS.train.images]
    places = [rows.index(row.tobytes()) for row in first.images]
    assert np.all(np.diff(places) >= 0)


@pytest.mark.parametrize("share", [0, -0.5, 1.5, float("nan")])
def test_no_other_share_is_taken(share: float) -> None:
    with pytest.raises(UsageError, match="--share must be above 0 and at most 1"):
        DIGITS.train.share(share, 0)


def test_the_card_of_a_shadow_model_says_what_it_learned_and_of_what(tmp_path: Path) -> None:
    asked = {"arch": "small_cnn", "epochs": 1, "seed": 3, "out": tmp_path / "shadow"}
    card = verbs.train(DIGITS, share=0.5, **asked).stored.card
    assert card.data_digest == DIGITS.train.share(0.5, 3).digest
    assert card.recipe["share"] == 0.5
    assert card.recipe["drawn_from"] == DIGITS.train.digest


def test_a_shadow_model_is_measured_on_images_that_it_had_no_part_of(tmp_path: Path) -> None:
    whole = DIGITS.train
    dealt = Dataset(
        "dealt", whole.part(0, 600), whole.part(600, 700), whole.part(700), DIGITS.classes,
        whole=whole,
    )  # fmt: skip
    verbs.train(dealt, arch="small_cnn", epochs=1, share=0.5, out=tmp_path / "shadow")
    found = verbs.evaluate(str(tmp_path / "shadow.safetensors"), dealt)
    assert found.values["data"]["used"] == "test"

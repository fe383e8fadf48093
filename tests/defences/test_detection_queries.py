"""What one client asks tells attacks by queries from drawings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pytest

from purpleteam.data.drawing import place, strokes
from purpleteam.defences.detection.queries import Queries, Sign, Watch, is_placed

SEVEN = [(40.0, 30.0), (90.0, 30.0), (60.0, 110.0)]


def drawn(points: list[tuple[float, float]]) -> np.ndarray:
    return place(strokes([points], width=9, size=140))


def growing(end: float) -> list[tuple[float, float]]:
    return [(40.0, 30.0), (40.0 + end, 30.0), (40.0 + end, 30.0 + 2 * end)]


def attack(image: np.ndarray, count: int, *, boxed: bool = False) -> Iterator[np.ndarray]:
    """Yield the image in noise of 0.1, over the whole field or where it has ink."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        noise = rng.integers(-25, 26, image.shape)
        yield np.clip(image + (noise * (image > 0) if boxed else noise), 0, 255).astype(np.uint8)


def first_sign(images: Iterable[np.ndarray], watch: Watch) -> tuple[int, Sign] | None:
    queries = Queries(watch)
    for number, image in enumerate(images, 1):
        if (sign := queries.see(image.tobytes())) is not None:
            return number, sign
    return None


def test_noise_beside_the_drawing_is_a_sign() -> None:
    found = first_sign(attack(drawn(SEVEN), 60), Watch())
    assert found is not None
    assert found[1] == "no_drawing"


def test_nearly_the_same_image_again_and_again_is_a_sign() -> None:
    found = first_sign(attack(drawn(SEVEN), 100, boxed=True), Watch())
    assert found is not None
    assert found[1] == "near_duplicates"


def test_a_shift_hides_no_near_duplicate() -> None:
    moved = [
        np.roll(one, (n % 3, n % 4), (0, 1)) for n, one in enumerate(attack(drawn(SEVEN), 100))
    ]
    boxed = [one * (one > 128) for one in moved]
    found = first_sign(boxed, Watch())
    assert found is not None
    assert found[1] == "near_duplicates"


def test_a_growing_drawing_is_no_sign() -> None:
    previews = (drawn(growing(end)) for _ in range(10) for end in np.linspace(2, 50, 40))
    assert first_sign(previews, Watch()) is None


def test_the_same_image_again_counts_for_nothing() -> None:
    queries = Queries(Watch(alarm=1.0))
    for _ in range(100):
        assert queries.see(drawn(SEVEN).tobytes()) is None
    assert queries.near == 0


def test_many_images_in_turn_are_seen_as_far_back_as_the_history_goes() -> None:
    rng = np.random.default_rng(0)
    digits = [drawn(list(map(tuple, rng.uniform(20, 120, (4, 2))))) for _ in range(60)]
    attacks = [list(attack(digit, 20, boxed=True)) for digit in digits]
    in_turn = [one[number] for number in range(20) for one in attacks]
    assert first_sign(in_turn, Watch()) is not None
    assert first_sign(in_turn, Watch(history=32)) is None


def test_honest_queries_between_keep_an_attack_below_the_alarm() -> None:
    """A limit that is known, and measured in benchmarks/abuse.py."""
    rng = np.random.default_rng(0)
    mixed: list[np.ndarray] = []
    for query in attack(drawn(SEVEN), 60):
        honest = (drawn(list(map(tuple, rng.uniform(20, 120, (4, 2))))) for _ in range(5))
        mixed += [query, *honest]
    assert first_sign(mixed, Watch()) is None


def test_memory_is_bounded() -> None:
    queries = Queries(Watch(history=64))
    rng = np.random.default_rng(0)
    for _ in range(200):
        queries.see(rng.integers(0, 256, 784, np.uint8).tobytes())
    assert queries._codes.shape == (9, 64)


def test_after_a_sign_the_sums_start_anew() -> None:
    queries = Queries(Watch(alarm=3.0))
    signs = [queries.see(image.tobytes()) for image in attack(drawn(SEVEN), 40)]
    assert sum(sign is not None for sign in signs) > 3
    assert max(queries.near, queries.strange) < 3


@pytest.mark.parametrize(
    ("rows", "columns", "placed"), [(20, 20, True), (21, 5, False), (5, 21, False), (0, 0, True)]
)
def test_what_is_placed_lies_in_a_box_of_20(rows: int, columns: int, placed: bool) -> None:
    image = np.zeros((28, 28), np.uint8)
    image[3 : 3 + rows, 4 : 4 + columns] = 1
    assert is_placed(image.tobytes()) == placed


def test_a_watch_outside_its_ranges_is_refused() -> None:
    with pytest.raises(ValueError, match="allowance must be between 0 and 1"):
        Watch(allowance=1.5)

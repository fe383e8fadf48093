"""What holds in whatever way a classifier is brought: the same answers, asked and told honestly."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contract_adapters import ADAPTERS, CLASSES, SIDE, Adapter

from purpleteam.cli import main
from purpleteam.core.errors import PurpleError
from purpleteam.data.images import ImageSet
from purpleteam.models import logits
from purpleteam.models.devices import frozen, to_batch
from purpleteam.models.inference import Nets, correct
from purpleteam.verbs._subject import Subject, open_subject

N = 30
NAMES = tuple("abc")
Run = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture(params=ADAPTERS)
def adapter(request: pytest.FixtureRequest) -> Adapter:
    return ADAPTERS[request.param]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapter: Adapter) -> Path:
    """The current folder, with weights and images; one in ten is labelled wrongly."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    rng = np.random.default_rng(0)
    np.save("weight.npy", rng.normal(size=(SIDE, SIDE, CLASSES)).astype(np.float32))
    images = rng.integers(0, 256, (N, adapter.side, adapter.side, 1)).astype(np.uint8)
    images[:, -1, -1] = 254
    labels = truth(tmp_path, images).argmax(1)
    labels[::10] = (labels[::10] + 1) % CLASSES
    np.savez("set.npz", images=images, labels=np.array(NAMES)[labels])
    return tmp_path


@pytest.fixture
def reference(here: Path, adapter: Adapter) -> Iterator[str]:
    with adapter.bring(here) as reference:
        yield reference


@pytest.fixture
def purple(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run `purple`; return its exit code, its answer and what it said of errors."""

    def run(*arguments: str) -> tuple[int, dict[str, Any], str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--json"])
        found = capfd.readouterr()
        return int(ended.value.code or 0), json.loads(found.out or "{}"), found.err

    return run


def truth(folder: Path, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the logits (N, classes) that the classifier itself has for images (N, H, W, 1)."""
    rows = images[:, :SIDE, :SIDE].reshape(len(images), -1)
    rows = rows / 255 if images.dtype == np.uint8 else rows
    found: np.ndarray[Any, Any] = (rows - 0.5) @ np.load(folder / "weight.npy").reshape(-1, CLASSES)
    return found


def opened(reference: str) -> Subject:
    return open_subject("set.npz", model=reference, split="all")


def test_it_says_of_each_image_what_the_classifier_says(reference: str, here: Path) -> None:
    subject = opened(reference)
    images = subject.images.images[:]
    scores = logits(subject.loaded.module, images)
    assert scores.argmax(1).tolist() == truth(here, images).argmax(1).tolist()


def test_it_gives_what_it_is_said_to_give(reference: str, adapter: Adapter) -> None:
    subject = opened(reference)
    with frozen(subject.loaded.module) as net:
        nets = Nets.of(net, to_batch(subject.images.images[:4]))
    assert (nets.differentiable, net.gives) == (adapter.white_box, adapter.gives)


def test_where_it_tells_how_sure_it_is_that_is_as_sure_as_the_classifier(
    reference: str, here: Path, adapter: Adapter, request: pytest.FixtureRequest
) -> None:
    if adapter.gives == "labels" or "unknown layer" in request.node.name:
        return  # it tells none, or squeezes it
    subject = opened(reference)
    scores = torch.from_numpy(logits(subject.loaded.module, subject.images.images[:8])).softmax(1)
    expected = torch.from_numpy(truth(here, subject.images.images[:8])).softmax(1)
    torch.testing.assert_close(scores, expected.float(), rtol=0, atol=1e-4)


def test_neither_order_nor_batch_size_changes_an_answer(reference: str) -> None:
    subject = opened(reference)
    images, net = subject.images.images[:], subject.loaded.module
    whole, parts = logits(net, images), logits(net, images[::-1].copy(), batch_size=7)
    np.testing.assert_allclose(parts[::-1], whole, rtol=1e-4, atol=1e-5)


def test_its_digest_stays_and_nothing_is_unpickled(
    reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    first, again = opened(reference).loaded, opened(reference).loaded
    assert first.digest == again.digest
    assert first.digest.startswith("sha256:") and len(first.digest) == 71


def test_numbers_that_are_none_are_an_error_in_one_line(
    here: Path, adapter: Adapter, purple: Run
) -> None:
    weight = np.load("weight.npy")
    np.save("weight.npy", np.full_like(weight, np.nan))
    if adapter.gives == "labels":
        return  # there are no numbers
    with adapter.bring(here) as reference:
        code, _, error = purple("evaluate", "--model", reference, "--dataset", "set.npz")
    assert code == 2 and error.count("\n") == 1
    assert any(word in error for word in ("NaN", "nan", "no label"))


def test_images_of_another_size_are_refused_in_one_line(reference: str, adapter: Adapter) -> None:
    side = adapter.side + 1
    other = ImageSet(np.zeros((6, side, side, 1), np.uint8), np.arange(6) % CLASSES)
    with pytest.raises(PurpleError) as error:
        open_subject(other, model=reference)
    assert "\n" not in str(error.value)


def test_one_line_measures_it(reference: str, purple: Run, here: Path) -> None:
    code, found, _ = purple(
        "evaluate", "--model", reference, "--dataset", "set.npz", "--split", "all"
    )
    assert code == 0
    assert found["clean_accuracy"]["value"] == pytest.approx(0.9)


def test_one_line_attacks_it_and_what_is_broken_is_broken(
    reference: str, adapter: Adapter, purple: Run, here: Path
) -> None:
    attack = ("linf", "0.05", "pgd:steps=5" if adapter.white_box else "square:queries=40")
    if adapter.gives == "labels":
        attack = ("l2", "30", "hop_skip_jump:queries=60")  # every image is near enough
    asked = [part for pair in zip(("--norm", "--epsilon", "--attack"), attack) for part in pair]
    asked += ["--split", "all", "--limit", "9", "--checked", "9", "--out", "found.npz"]
    code, found, error = purple("attack", "--model", reference, "--dataset", "set.npz", *asked)
    assert code == 0, error
    with np.load("found.npz", allow_pickle=False) as rows:
        broken, x_adv = rows["broken_by"] >= 0, rows["x_adv"]
        before, after = (truth(here, x) for x in (x_adv - rows["perturbation"], x_adv))
    assert broken.any() and (before.argmax(1) != after.argmax(1))[broken].all()
    assert found["robust_accuracy"]["value"] < found["clean_accuracy"]["value"]
    stand = found["robust_accuracy"]["value"] > 0  # of none nothing can be overstated
    assert adapter.white_box or not stand or found["soundness"]["verdict"] != "sound"
    assert stand or adapter.gives == "labels"


def test_an_attack_that_needs_more_is_refused_and_others_are_named(
    reference: str, adapter: Adapter, purple: Run
) -> None:
    if adapter.white_box:
        return  # no attack needs more
    asked = ("--attack", "pgd", "--epsilon", "0.1")
    code, _, error = purple("attack", "--model", reference, "--dataset", "set.npz", *asked)
    assert code == 2 and "'pgd' is white-box" in error and "hop_skip_jump" in error


@pytest.mark.parametrize("adapter", [ADAPTERS["an app"]], ids=["an app"])
def test_a_refused_image_is_not_right(reference: str, here: Path) -> None:
    pixels = np.load("set.npz")["images"]
    labels = truth(here, pixels).argmax(1)
    pixels[:5, -1, -1] = 255
    right = correct(opened(reference).loaded.module, ImageSet(pixels, labels))
    assert right.tolist() == [False] * 5 + [True] * (N - 5)

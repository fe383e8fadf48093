"""A stranger's first five minutes: their .pt file, their net's habits, and what goes wrong."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_shapes import write_own
from cli_values import Ended, Purple

from purpleteam.core.digest import sha256_file
from purpleteam.data.idx import IDX_FILES, write_idx

HABITS = '''
"""The same net with the habits that nets have."""
import torch
from torch import nn
from shapes_net import Net


class Habit(Net):
    def __init__(self, habit):
        super().__init__(4)
        self.habit = habit

    def forward(self, x):
        return self.habit(super().forward(x))


class Dropped(Net):
    def __init__(self):
        super().__init__(4)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return super().forward(self.dropout(x))


class Inverted(Net):
    def __init__(self):
        super().__init__(4)

    def forward(self, x):
        return super().forward(1 - x)


print("a module that talks")
dropped, inverted = Dropped, Inverted
softmax = lambda: Habit(lambda scores: scores.softmax(1))
pair = lambda: Habit(lambda scores: (scores.mean(), scores))
features = lambda: Habit(lambda scores: (scores.repeat(1, 3), scores))
still = lambda: Habit(lambda scores: scores.detach())
column = lambda: Habit(lambda scores: scores[:, :1])
mean = lambda: Habit(lambda scores: scores.mean(0, keepdim=True))
nan = lambda: Habit(lambda scores: scores * float("nan"))
half = lambda: Net(4).half()
chatty = lambda: Habit(lambda scores: print("a net that talks") or scores)
'''


@pytest.fixture
def state(here: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """The user's folder: two modules, shapes/, four.safetensors; and its weights."""
    for name in ("shapes_net", "habits"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (here / "habits.py").write_text(HABITS, "utf-8")
    return write_own(here)


@pytest.fixture
def ask(purple: Purple, state: object) -> Callable[..., Ended]:
    """Run a verb on a factory, weights and the shapes, or other data."""

    def run(verb: str, factory: str, weights: str, *more: object, data: str = "shapes") -> Ended:
        return purple(
            *verb.split(), "--model", factory, "--weights", weights, "--dataset", data, *more
        )

    return run


Ask = Callable[..., Ended]


def accuracy(ended: Ended) -> float:
    return float(ended.json["clean_accuracy"]["value"])


@pytest.mark.parametrize("end", ["pt", "pth", "bin"])
def test_a_checkpoint_in_half_precision_is_attacked_as_it_is(
    ask: Ask, state: dict[str, torch.Tensor], end: str
) -> None:
    half = {f"module.{name}": value.half() for name, value in state.items()}
    torch.save({"state_dict": half, "epoch": 3}, f"their.{end}")
    asked = ("shapes_net:four", f"their.{end}")
    ended = ask("evaluate", *asked, "--json")
    assert (ended.code, ended.err) == (0, "")
    assert accuracy(ended) > 0.9
    assert ended.json["subject"]["model"] == sha256_file(Path(f"their.{end}"))
    told = " ".join(ended.json["notes"])
    assert "'state_dict'" in told and "'module.'" in told and "float16" in told
    ended = ask("attack", *asked, "--attack", "pgd:steps=10", "--epsilon", 0.5, "--json")
    assert (ended.code, ended.err) == (0, "")
    assert ended.json["robust_accuracy"]["value"] < accuracy(ended)


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (Path("boom"), "it ran")


def _pickled(content: Any) -> Callable[[], None]:
    return lambda: torch.save(content, "their.pt")


def _truncated() -> None:
    torch.save({"w": torch.zeros(1000)}, "their.pt")
    Path("their.pt").write_bytes(Path("their.pt").read_bytes()[:-500])


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda: Path("their.pt").write_bytes(pickle.dumps(_Bomb())), "a raw pickle"),
        (_pickled({"w": _Bomb()}), "not on the allow-list"),
        (_pickled(torch.nn.Linear(2, 2)), "save model.state_dict() alone"),
        (_pickled({"head.weight": torch.full((4, 392), torch.nan)}), "holds NaN"),
        (_pickled({"epoch": 3}), "no state dict"),
        (_truncated, "their.pt"),
        (lambda: Path("their.pt").write_text("weights\n"), "of kind"),
        (lambda: Path("their.pt").write_bytes(b""), "their.pt"),
    ],
    ids=["raw", "zip", "module", "nan", "no-weights", "truncated", "text", "empty"],
)
@pytest.mark.parametrize("verb", ["evaluate", "attack", "export --out copy"])
def test_a_file_that_is_not_let_in_is_a_no_with_its_reasons(
    ask: Ask, write: Callable[[], None], reason: str, verb: str
) -> None:
    write()
    ended = ask(verb, "shapes_net:four", "their.pt")
    assert (ended.code, ended.out, ended.err.count("\n")) == (1, "", 1)
    assert ended.err.startswith("error: weights 'their.pt' are refused: ")
    assert reason in ended.err
    assert not Path("boom").exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda state: {**state, "extra": torch.zeros(1)}, "left over 'extra'"),
        (lambda state: {n: v for n, v in state.items() if n != "head.bias"}, "missing 'head.bias'"),
        (lambda _: torch.nn.Linear(2, 2).state_dict(), "missing 'body.0.weight'"),
        (lambda state: {**state, "head.bias": torch.zeros(10)}, "shape (10,), not (4,)"),
    ],
    ids=["extra", "missing", "other", "shape"],
)
def test_weights_of_another_net_are_named(ask: Ask, state: Any, change: Any, reason: str) -> None:
    torch.save(change(state), "their.pt")
    ended = ask("evaluate", "shapes_net:four", "their.pt")
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert "weights 'their.pt' do not fit" in ended.err and reason in ended.err


def test_a_net_that_expects_another_range_is_recognised_and_helped(ask: Ask) -> None:
    asked = ("habits:inverted", "four.safetensors")
    plain = ask("evaluate", *asked, "--json")
    (note,) = plain.json["notes"]
    assert "--normalise inverted" in note and "normalisation" not in plain.json["subject"]
    helped = ask("evaluate", *asked, "--normalise", "inverted", "--json")
    assert helped.json["notes"] == [] and accuracy(helped) > accuracy(plain)
    assert helped.json["subject"]["normalisation"] == {"mean": [1.0], "std": [-1.0]}
    spelled = ask("evaluate", *asked, "--normalise", "mean=1,std=[-1.0]", "--json")
    assert spelled.json["confusion_matrix"] == helped.json["confusion_matrix"]


@pytest.mark.parametrize(
    ("factory", "note"),
    [
        ("habits:dropped", "in train mode (Dropout); it is used in eval mode"),
        ("habits:softmax", "returns probabilities, not logits"),
        ("habits:pair", "returns a tuple of 2; its [1] is taken for the logits"),
        ("habits:features", "returns a tuple of 2; its [1] is taken for the logits"),
        ("habits:half", "the factory's net is float16: made float32"),
    ],
)
def test_habits_are_told_and_lived_with(ask: Ask, factory: str, note: str) -> None:
    ended = ask("evaluate", factory, "four.safetensors")
    assert ended.code == 0
    assert [line for line in ended.out.splitlines() if line.startswith("note: ") and note in line]
    assert "talks" not in ended.out


def test_what_a_net_prints_is_no_part_of_the_answer(ask: Ask) -> None:
    ended = ask("evaluate", "habits:chatty", "four.safetensors", "--json")
    assert ended.json["clean_accuracy"]["n"] > 0 and "a net that talks" in ended.err


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        ("habits:column", "wrap it to return torch.stack([-z, z], 1)"),
        ("habits:mean", "returned (1, 4), not logits"),
        ("habits:nan", "returned NaN or infinite logits"),
    ],
)
@pytest.mark.parametrize("verb", ["evaluate", "attack"])
def test_answers_that_are_no_logits_are_one_line(
    ask: Ask, factory: str, reason: str, verb: str
) -> None:
    ended = ask(verb, factory, "four.safetensors", "--quiet")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.splitlines()[-1].startswith("error: ") and reason in ended.err


def test_a_net_without_gradients_is_attacked_by_what_it_allows(ask: Ask) -> None:
    asked = ("attack", "habits:still", "four.safetensors", "--epsilon", 0.3, "--limit", 8)
    ended = ask(*asked, "--json")
    assert [one["name"] for one in ended.json["attacks"]] == ["square"]
    assert any("no gradient reaches the images" in one for one in ended.json["notes"])
    ended = ask(*asked, "--attack", "pgd")
    assert ended.code == 2 and "is white-box, no gradient" in ended.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("imagenett", "did you mean 'imagenet'?"),
        ("mean=1", "not of the form mean=M,std=S"),
        ("mean=[1,2],std=[1,2]", "is of 2 channels, the images have 3"),
    ],
)
def test_a_normalisation_that_is_none_is_one_line(ask: Ask, text: str, reason: str) -> None:
    ended = ask("evaluate", "shapes_net:four", "four.safetensors", "--normalise", text)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert reason in ended.err


def _picture(path: str, size: int) -> None:
    from PIL import Image

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((size, size, 3), np.uint8)).save(path)


@pytest.mark.parametrize(
    ("pictures", "reason"),
    [
        ({}, "nor two class folders, but 0"),
        ({"a/1.png": 16}, "nor two class folders, but 1"),
        ({"a/1.png": 16, "b/1.png": 17}, "b/1.png: 17x17, but"),
        ({"a/1.png": 16, "b/1.png": 16}, "too few images"),
    ],
    ids=["empty", "one-class", "two-sizes", "too-few"],
)
def test_a_folder_that_is_no_dataset_is_one_line(
    ask: Ask, pictures: dict[str, int], reason: str
) -> None:
    Path("data").mkdir()
    for name, size in pictures.items():
        _picture(f"data/{name}", size)
    ended = ask("attack", "shapes_net:four", "four.safetensors", data="data")
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert reason in ended.err


def test_idx_files_of_another_size_and_in_colour_are_data_too(ask: Ask) -> None:
    rng = np.random.default_rng(0)
    Path("idx").mkdir()
    for images, labels in (IDX_FILES[:2], IDX_FILES[2:]):
        write_idx(Path("idx") / images, rng.integers(0, 256, (30, 16, 16, 3), np.uint8))
        write_idx(Path("idx") / labels, (np.arange(30) % 4).astype(np.uint8))
    ended = ask("attack", "shapes_net:four", "four.safetensors", "--json", data="idx")
    assert ended.code == 0 and ended.json["clean_accuracy"]["n"] == 30


def test_import_tells_what_the_model_makes_of_the_images(purple: Purple, state: object) -> None:
    ended = purple(
        *("import", "four.safetensors", "--arch", "habits:inverted", "--dataset", "shapes"),
        *("--out", "in/net", "--json"),
    )
    assert (ended.code, ended.json["verdict"]) == (0, "accepted")
    assert any("--normalise inverted" in reason for reason in ended.json["reasons"])
    stored = ("--model", "in/net", "--dataset", "shapes", "--normalise", "inverted")
    assert accuracy(purple("evaluate", *stored, "--json")) > 0.9

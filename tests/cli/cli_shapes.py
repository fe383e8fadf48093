"""A classifier and a dataset that are nobody's but the user's: 3x16x16 images of four shapes."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

MODULE = '''
"""Nets as a user writes them: they know nothing of Purpleteam."""
from collections import OrderedDict

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(8 * 7 * 7, classes)

    def forward(self, x):
        return self.head(self.body(x))


def of_layers(classes):
    body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten())
    return nn.Sequential(OrderedDict(body=body, head=nn.Linear(8 * 7 * 7, classes)))


def four():
    return of_layers(4)


def two():
    return of_layers(2)


def number():
    return 4


def wants(classes):
    return of_layers(classes)


def fails():
    raise RuntimeError("no weights\\nhere")
'''


def write_pictures(folder: Path, count: int = 30) -> None:
    """Write `count` noisy pictures of each class: a bright quarter, another for each class."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for label, name in enumerate(("disc", "line", "ring", "star")):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 90, (16, 16, 3), np.uint8)
            row, column = divmod(label, 2)
            pixels[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] += 120
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def write_own(folder: Path) -> dict[str, Any]:
    """Write shapes_net.py, shapes/ and weights trained a little: four.safetensors, four.pt."""
    from safetensors.torch import load

    for name, content in _own().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    state: dict[str, Any] = load(_own()["four.safetensors"])
    return state


@cache
def _own() -> dict[str, bytes]:
    """Return those files by name: trained once for all tests."""
    with TemporaryDirectory() as made:
        _train(Path(made))
        files = [path for path in Path(made).rglob("*") if path.is_file()]
        return {str(path.relative_to(made)): path.read_bytes() for path in files}


def _train(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from purpleteam.data.folders import load_dataset
    from purpleteam.models.devices import to_batch

    (folder / "shapes_net.py").write_text(MODULE, "utf-8")
    write_pictures(folder / "shapes")
    scope: dict[str, Any] = {}
    exec(MODULE, scope)  # noqa: S102  our own text above
    train = load_dataset(folder / "shapes").train
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = scope["four"]()
        optimizer = torch.optim.Adam(net.parameters(), 0.01)
        for _ in range(8):
            loss = torch.nn.functional.cross_entropy(
                net(to_batch(train.images)), torch.tensor(train.labels)
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    state: dict[str, Any] = net.state_dict()
    save_file(state, folder / "four.safetensors")
    torch.save(state, folder / "four.pt")

"""A small model, few images, and `purple` in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from purpleteam.cli import main
from purpleteam.data.images import Dataset, ImageSet
from purpleteam.data.sources.digits import load_digits

FACTORY = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10))
"""


@pytest.fixture(scope="session")
def net() -> nn.Module:
    """A linear model that is right about most digits, by a few steps of training."""
    digits = load_digits().train
    x = torch.from_numpy(digits.images.copy()).permute(0, 3, 1, 2).float() / 255
    y = torch.from_numpy(digits.labels.copy())
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10))
    optimiser = torch.optim.Adam(linear.parameters(), 0.01)
    for _ in range(40):
        optimiser.zero_grad()
        nn.functional.cross_entropy(linear(x), y).backward()
        optimiser.step()
    return linear


@pytest.fixture(scope="session")
def images() -> ImageSet:
    return load_digits().test.first(30)


@pytest.fixture(scope="session")
def few(images: ImageSet) -> Dataset:
    """A data set whose test split is those images."""
    whole = load_digits()
    return replace(whole, name="few", validation=whole.validation.first(40), test=images)


@pytest.fixture
def here(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The current folder: a factory of a net lies in it, and nothing else."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(FACTORY, "utf-8")
    return tmp_path


@pytest.fixture
def purple(here: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run `purple`; return its exit code, output and errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        printed = capfd.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run

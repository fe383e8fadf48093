"""`module:factory` and `path/to/module.py:factory`: the user's own code, and what fails in it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from purpleteam.core.errors import ModelError, UsageError
from purpleteam.core.factory import call_factory, portable
from purpleteam.models import build, load

NET = """
import torch
from torch import nn
from layers import WIDTH

def build():
    from layers import head
    return nn.Sequential(nn.Flatten(), head())

def own():
    net = build()
    net[1].weight.data.fill_(0.5)
    net[1].bias.data.copy_(torch.arange(3.0))
    return net

ready = own()

def half():
    return own().half()

def broken():
    raise RuntimeError("no\\nweights here")

def needs(width):
    return build()

def kind():
    return nn.Linear

def nothing():
    build()

def pair():
    return build(), 3
"""
LAYERS = "from torch import nn\nWIDTH = 144\ndef head():\n    return nn.Linear(WIDTH, 3)\n"


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder nets/ with net.py and what it imports; the current folder is beside it."""
    (tmp_path / "nets").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "nets" / "net.py").write_text(NET, "utf-8")
    (tmp_path / "nets" / "layers.py").write_text(LAYERS, "utf-8")
    save_file(
        {"1.weight": torch.eye(3, 144), "1.bias": torch.arange(3.0)}, tmp_path / "w.safetensors"
    )
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


@pytest.mark.parametrize(
    "form", ["../nets/net.py:build", "{}/nets/net.py:build", "../nets/net:build"]
)
def test_a_factory_may_be_named_by_its_file(code: Path, form: str) -> None:
    before = list(sys.path)
    loaded = load(form.format(code), weights=code / "w.safetensors")
    assert loaded.module(torch.zeros(1, 1, 12, 12)).tolist() == [[0.0, 1.0, 2.0]]
    assert sys.path == before


def test_a_file_does_not_stand_for_a_module_that_others_import(code: Path) -> None:
    (code / "nets" / "types.py").write_text(NET, "utf-8")
    assert isinstance(build("../nets/types.py:build", (1, 12, 12), 3, seed=0), nn.Module)
    import types

    assert hasattr(types, "SimpleNamespace")


def test_a_file_of_a_package_may_import_from_it(code: Path) -> None:
    package = code / "pack" / "deep"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").write_text("", "utf-8")
    (package / "parts.py").write_text(LAYERS, "utf-8")
    (package / "net.py").write_text("from .parts import head as build\n", "utf-8")
    assert isinstance(build("../pack/deep/net.py:build", (1, 12, 12), 3, seed=0), nn.Linear)


def test_a_card_says_a_file_without_the_folders_of_the_machine(code: Path) -> None:
    assert portable(f"{code}/nets/net.py:build") == "net.py:build"
    assert portable("sub/net:build") == "sub/net.py:build"
    assert portable("pack.net:build") == "pack.net:build"


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (
            "broken",
            r"no weights here \(RuntimeError in .*net.py, line 22 \(broken\)\); it is code of",
        ),
        ("needs", r"needs'\(width\) failed .* def build\(\): return needs\(\.\.\.\)"),
        ("kind", r"returned the class Linear, not a net: return Linear\(\)"),
        ("nothing", r"returned NoneType, .*does it end with `return net`\?"),
        ("pair", "returned tuple, .*return the net alone"),
        ("other", "has no 'other'; it has .*nothing, pair"),
    ],
)
def test_what_is_no_factory_is_told_with_the_remedy(code: Path, factory: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as error:
        load(f"../nets/net.py:{factory}", weights=code / "w.safetensors")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_library\n", "needs 'no_such_library' to be installed"),
        ("def build(:\n", r"cannot be imported: invalid syntax.*line 1"),
        ("x = 1 / 0\n", r"division by zero \(ZeroDivisionError in .*bad.py, line 1"),
    ],
)
def test_a_file_that_cannot_be_imported_is_told_with_its_line(
    code: Path, text: str, message: str
) -> None:
    (code / "bad.py").write_text(text, "utf-8")
    for _ in range(2):  # a half loaded module is not kept
        with pytest.raises(ModelError, match=message):
            call_factory("../bad.py:build", ModelError)
    with pytest.raises(ModelError, match=r"there is no file '../gone.py'"):
        call_factory("../gone.py:build", ModelError)
    with pytest.raises(ModelError, match=r"or give its file: PATH/gone_away.py:NAME"):
        call_factory("gone_away:build", ModelError)


@pytest.mark.parametrize("name", ["own", "ready"])
def test_a_factory_that_sets_its_own_weights_needs_no_file(code: Path, name: str) -> None:
    loaded = load(f"../nets/net.py:{name}")
    assert loaded.module(torch.zeros(1, 1, 12, 12)).tolist() == [[0.0, 1.0, 2.0]]
    assert any("the factory's own are used" in note for note in loaded.notes)
    assert loaded.digest == load(f"../nets/net.py:{name}").digest
    assert loaded.module is not load(f"../nets/net.py:{name}").module
    with pytest.raises(UsageError, match=r"needs --weights FILE .* other weights each time"):
        load("../nets/net.py:build")


def test_a_factory_in_half_precision_is_made_float32_and_it_is_said(code: Path) -> None:
    loaded = load("../nets/net.py:half")
    assert {one.dtype for one in loaded.module.parameters()} == {torch.float32}
    assert any("float16: made float32" in note for note in loaded.notes)


def test_wrappers_that_only_run_a_net_are_taken_off(code: Path) -> None:
    text = "import torch\nfrom net import own\n\n"
    text += "class Compiled(torch.nn.Module):\n    def __init__(self, net):\n"
    text += (
        "        super().__init__()\n        self._orig_mod = net  # as torch.compile keeps it\n\n"
    )
    text += "spread = lambda: torch.nn.DataParallel(own())\ncompiled = lambda: Compiled(spread())\n"
    (code / "nets" / "wrapped.py").write_text(text, "utf-8")
    for name in ("spread", "compiled"):
        loaded = load(f"../nets/wrapped.py:{name}")
        assert isinstance(loaded.module, nn.Sequential)
        assert loaded.digest == load("../nets/net.py:own").digest


def test_a_quantised_net_that_loads_its_own_weights_has_a_digest(code: Path) -> None:
    text = "import torch\nfrom net import own\n"
    text += "def int8():\n    return torch.ao.quantization.quantize_dynamic(own().eval())\n"
    (code / "nets" / "small.py").write_text(text, "utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = load("../nets/small.py:int8")
        assert loaded.module(torch.zeros(1, 1, 12, 12)).tolist() == [[0.0, 1.0, 2.0]]
        with pytest.raises(ModelError, match="holds more than tensors in '1"):
            load("../nets/small.py:int8", weights=code / "w.safetensors")

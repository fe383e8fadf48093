"""Plug-ins by name: one file each, found by loading their folder."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from purpleteam.core.errors import UsageError
from purpleteam.core.registry import Registry, check_ranges

PLUG_IN = """
from purpleteam_tests_plug_ins import PARTS

@PARTS.register("{name}")
def part() -> str:
    return "{name}"
"""


@pytest.fixture
def attacks() -> Registry[str]:
    made: Registry[str] = Registry("attack")
    for name in ("pgd", "fgsm"):
        made.register(name)(name.upper())
    return made


def test_a_part_is_found_by_its_name(attacks):
    assert attacks["pgd"] == "PGD"
    assert "pgd" in attacks
    assert len(attacks) == 2


def test_parts_come_in_order_of_name(attacks):
    assert dict(attacks) == {"fgsm": "FGSM", "pgd": "PGD"}
    assert list(attacks) == ["fgsm", "pgd"]


def test_registering_returns_the_part_unchanged(attacks):
    part = object()
    assert attacks.register("other")(part) is part


def test_a_name_cannot_be_registered_twice(attacks):
    with pytest.raises(ValueError, match="attack 'pgd' is registered twice"):
        attacks.register("pgd")("again")
    assert attacks["pgd"] == "PGD"


def test_an_unknown_name_gives_the_nearest_and_all(attacks):
    with pytest.raises(UsageError) as error:
        attacks["pdg"]
    assert str(error.value) == "unknown attack 'pdg' (did you mean 'pgd'?); known: fgsm, pgd"


def test_asking_whether_a_name_is_known_is_no_error(attacks):
    assert attacks.get("pgd") == "PGD"
    assert attacks.get("pdg") is None
    assert attacks.get("pdg", "fgsm") == "fgsm"
    assert "pdg" not in attacks


def test_loading_a_folder_imports_every_public_file(tmp_path: Path, monkeypatch):
    package = tmp_path / "purpleteam_tests_plug_ins"
    package.mkdir()
    head = "from purpleteam.core.registry import Registry\nPARTS = Registry('part')\n"
    (package / "__init__.py").write_text(head)
    for name in ("one", "two", "_private"):
        (package / f"{name}.py").write_text(PLUG_IN.format(name=name))
    monkeypatch.syspath_prepend(tmp_path)
    loaded = importlib.import_module(package.name)
    loaded.PARTS.load(loaded)
    loaded.PARTS.load(loaded)  # a second time is nothing new
    assert list(loaded.PARTS) == ["one", "two"]
    for name in [one for one in sys.modules if one.startswith(package.name)]:
        del sys.modules[name]


@dataclass
class Part:
    ranges = "steps at least 1; share from 0 to 1"
    steps: int | None = 1
    share: float = 0.5


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"steps": 1.5}, "steps must be whole and at least 1, not 1.5"),
        ({"share": "x"}, "share must be a number and from 0 to 1, not 'x'"),
        ({"share": float("nan")}, "share must be from 0 to 1, not nan"),
    ],
)
@pytest.mark.parametrize("written", [True, False], ids=["types", "types as text"])
def test_an_option_outside_its_range_is_named(written, option, said):
    Part.__dataclass_fields__["steps"].type = int | None if written else "int | None"
    with pytest.raises(ValueError, match=f"^{said}$"):
        check_ranges(Part(**option))
    check_ranges(Part(steps=None, share=1.0))

"""Errors and imports: what the whole package promises of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from purpleteam.core import errors
from purpleteam.core.errors import (
    MissingExtra,
    NeedsFailed,
    PurpleError,
    Refused,
    place_of,
    unknown,
)
from purpleteam.core.progress import SILENT

HEAVY = ["torch", "numpy", "scipy", "sklearn", "pydantic", "onnxruntime", "starlette", "bandit"]
KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, PurpleError)
]


def test_every_error_is_in_the_tree_that_the_docstring_draws():
    for kind in KINDS:
        assert issubclass(kind, PurpleError)
        assert f" {kind.__name__} " in (errors.__doc__ or "").replace("\n", " ")
    assert set(KINDS) == {PurpleError, *PurpleError.__subclasses__(), NeedsFailed}


def test_only_a_refusal_says_no_rather_than_fails():
    assert {kind.exit_code for kind in KINDS if kind is not Refused} == {2}
    assert Refused.exit_code == 1


def test_an_unknown_name_comes_with_the_nearest_and_all_choices():
    message = unknown("norm", "l_inf", ["linf", "l2"])
    assert message == "unknown norm 'l_inf' (did you mean 'linf'?); known: l2, linf"
    assert unknown("norm", "???", ["linf"]) == "unknown norm '???'; known: linf"


def test_a_missing_part_comes_with_the_command_that_installs_it():
    message = str(MissingExtra("Starlette", "serve"))
    assert message == "Starlette is not installed; try: pip install 'purpleteam[serve]'"


def test_silent_progress_takes_everything_and_says_nothing(capsys):
    with SILENT.task("train", 3) as task:
        task.advance()
        task.advance(2, loss=0.5)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "module",
    ["purpleteam", "purpleteam.core", "purpleteam.core.verification", "purpleteam.core.cards"],
)
def test_importing_core_loads_nothing_heavy(module):
    code = f"import sys, {module}; print([one for one in {HEAVY} if one in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def raised(call):
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_an_error_is_traced_to_the_code_that_is_no_library_and_not_ours(tmp_path):
    code = compile("import json\ndef net(x):\n    return json.loads(x)\n", "/u/net.py", "exec")
    scope = {}
    exec(code, scope)  # noqa: S102  our own text above
    assert place_of(raised(lambda: scope["net"]("{")))[0] == "user"
    error = raised(lambda: scope["net"]("{"))
    error.__traceback__ = error.__traceback__.tb_next.tb_next  # without this file's frames
    assert place_of(error) == ("user", "/u/net.py, line 3 (net)")
    error.__traceback__ = error.__traceback__.tb_next  # as if Purpleteam had called the library
    assert place_of(error) == ("json", "")


def test_an_error_of_ours_is_traced_to_ours():
    error = raised(lambda: errors.unknown("thing", "x", [3, "a"]))
    error.__traceback__ = error.__traceback__.tb_next.tb_next
    whose, place = place_of(error)
    assert whose == "purpleteam" and place.startswith("purpleteam/core/errors.py, line ")
    assert Path(place.partition(",")[0]).name == "errors.py"

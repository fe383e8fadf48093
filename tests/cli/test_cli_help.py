"""`purple --help`, and options that mean the same everywhere."""

from __future__ import annotations

import ast
import json
import resource
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
import typer
from cli_values import Purple

from purpleteam.cli.app import app
from purpleteam.cli.build import FLOW

HEAVY = ("torch", "numpy", "sklearn", "scipy", "onnxruntime", "starlette", "bandit", "yaml")
GROUPS = ("data", "keys")
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
VERBS = {name: one for name, one in COMMANDS.items() if name not in GROUPS}
VERBS |= {f"{of} {name}": one for of in GROUPS for name, one in COMMANDS[of].commands.items()}


def options(verb: str) -> dict[str, object]:
    return {name: one for one in VERBS[verb].params for name in one.opts if name[0] == "-"}


def fresh(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, json\nfrom purpleteam.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit: pass\n"
        "sys.stderr.write(json.dumps(sorted(sys.modules)))"
    )
    loaded = json.loads(fresh(code).stderr)
    assert [name for name in HEAVY if name in loaded] == []


def test_help_answers_in_under_0_4_seconds_of_work() -> None:
    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        fresh("from purpleteam.cli import main; main(['--help'])")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(once() for _ in range(3)) < 0.4


def test_the_package_run_as_a_module_is_the_command() -> None:
    asked = [sys.executable, "-m", "purpleteam", "frobnicate"]
    ended = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 2 and "'frobnicate'" in ended.stderr


def test_help_lists_the_verbs_in_the_order_of_the_flow(purple: Purple) -> None:
    shown = purple("--help").out.split("Commands:")[1].splitlines()
    assert tuple(line.split()[0] for line in shown if line.strip()) == FLOW
    assert set(FLOW) == set(COMMANDS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_the_options_of_all(purple: Purple, verb: str) -> None:
    ended = purple(*verb.split(), "--help")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"Usage: purple {verb}")
    assert {"--json", "--quiet", "--debug"} <= set(options(verb))


SAME = ("--split", "--limit", "--threads", "--device", "--out", "--json", "--quiet", "--debug")


@pytest.mark.parametrize("name", [*SAME, "--arch", "--epochs", "--budget"])
def test_an_option_means_the_same_everywhere(name: str) -> None:
    found = [one for verb in VERBS if (one := options(verb).get(name))]
    assert found
    assert len({one.help for one in found}) == 1  # type: ignore[attr-defined]
    if name != "--arch":  # who trains has one by default, who reads a stored model needs none
        assert len({str(one.default) for one in found}) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("verbs", "wanted"),
    [
        (("evaluate", "attack"), ("--model", "--weights", "--dataset", "--split", "--limit")),
        (("attack",), ("--attack", "--norm", "--epsilon", "--seed", "--out")),
        (("train", "harden"), ("--recipe", "--epochs", "--budget", "--dataset", "--seed", "--out")),
        (("train", "evaluate", "poison", "attack", "harden"), ("--threads", "--device", "--seed")),
        (("run",), ("--profile", "--config", "--set", "--out", "--resume", "--seed", "--threads")),
        (("demo",), ("--out", "--resume", "--seed", "--threads", "--device")),
        (("threats",), ("--model", "--run", "--url", "--missing")),
        (("serve",), ("--host", "--port", "--model", "--expose-confidences")),
        (("scan",), ("--fail-on", "--out")),
        (("import",), ("--arch", "--out")),
    ],
)
def test_the_promised_options_are_there(verbs: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    for verb in verbs:
        assert set(wanted) <= set(options(verb)), verb


def test_no_module_imports_click_itself() -> None:
    for file in Path(str(resources.files("purpleteam"))).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = [one.name for one in getattr(node, "names", []) if isinstance(node, ast.Import)]
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert "click" not in {name.partition(".")[0] for name in names}, file

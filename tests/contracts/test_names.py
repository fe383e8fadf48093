"""One word per idea: no identifier in the source uses a synonym that the glossary rules out."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import purpleteam

SOURCE = Path(purpleteam.__file__).parent
INSTEAD = {
    "epsilon": "eps eps_max",
    "step_size": "stepsize eps_step alpha",
    "steps": "n_iter max_iter num_iter niter iterations n_steps num_steps nb_iter",
    "restarts": "num_random_init n_restarts num_restarts",
    "perturbation": "delta",
    "x_adv": "advs adv_images adv_x xadv x_advs",
    "robust_accuracy": "adv_acc adv_accuracy robust_acc adversarial_accuracy",
    "clean_accuracy": "clean_acc natural_accuracy standard_accuracy benign_accuracy nat_acc",
    "attack_success_rate": "asr poison_accuracy",
    "evasion_success_rate": "fooling_rate",
    "target_label": "y_target attack_target",
    "poison_rate": "pratio poison_ratio poison_portion",
    "trigger": "watermark",
    "certified_accuracy": "provable_accuracy certified_acc",
    "selection_samples": "n0",
    "failure_probability": "fail_prob",
    "digest": "checksum",
    "defence": "defense defenses defend_model",
}
RULED_OUT = {word: name for name, words in INSTEAD.items() for word in words.split()}
ALLOWED = {
    ("png.py", "checksum"),  # the CRC of a PNG's parts, which is no digest
    *((name, "delta") for name in ("dp_sgd.py", "audit.py", "_audited.py")),  # of (epsilon, delta)
    ("layers.py", "alpha"),  # PyTorch's keyword of torch.sub and torch.add
}
FILES = sorted(SOURCE.rglob("*.py"))


def identifiers(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                yield name, line
            case ast.keyword(arg=str(name)):
                yield name, line
            case (
                ast.FunctionDef(name=name)
                | ast.ClassDef(name=name)
                | ast.AsyncFunctionDef(name=name)
            ):
                yield name, line


def synonyms(source: str) -> list[str]:
    found = []
    for name, line in identifiers(ast.parse(source)):
        plain = name.strip("_").lower()
        if plain in RULED_OUT or "defense" in plain:
            found.append(f"line {line}: {name}, not {RULED_OUT.get(plain, 'defence')}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_uses_the_words_of_the_glossary(path: Path) -> None:
    found = synonyms(path.read_text("utf-8"))
    allowed = [word for name, word in ALLOWED if name == path.name]
    assert not [one for one in found if not any(f": {word}," in one for word in allowed)]


@pytest.mark.parametrize(
    "source",
    ["def attack(eps): ...", "alpha = 1", "self._adv_acc", "f(max_iter=3)", "class Defense: ..."],
)
def test_a_synonym_is_found_wherever_a_name_may_stand(source: str) -> None:
    assert len(synonyms(source)) == 1


def test_no_folder_or_file_is_named_by_a_synonym_or_for_nothing_in_particular() -> None:
    names = {path.stem for path in FILES} | {path.parent.name for path in FILES}
    assert not names & (set(RULED_OUT) | {"utils", "helpers", "common", "manager", "misc"})

"""Configuration: text and files into dataclasses, nothing unknown, nothing of another type."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from purpleteam.core.config import build, from_file, merge, number, override, parse_part
from purpleteam.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Attack:
    steps: int = 40
    step_size: float | None = None
    loss: Literal["ce", "dlr"] = "ce"
    curve: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")


@dataclass(frozen=True, kw_only=True)
class Asked:
    name: str
    attack: Attack = field(default_factory=Attack)
    options: dict[str, dict[str, float]] = field(default_factory=dict)
    made: str = field(default="here", init=False)


def test_values_become_fields_of_their_type():
    values = {"steps": "7", "step_size": "0.5", "loss": "dlr", "curve": ["0.1", 1]}
    assert build(Attack, values, "x") == Attack(steps=7, step_size=0.5, loss="dlr", curve=(0.1, 1))


@pytest.mark.parametrize("text", ["8/255", " 8 / 255 ", "0.8e1/255", "16/510.0"])
def test_a_number_may_be_a_fraction(text):
    assert number(text) == 8 / 255
    assert build(Attack, {"step_size": text, "curve": [text, 0.5]}, "x").curve == (8 / 255, 0.5)
    assert parse_part(f"pgd:step_size={text},steps=3")[1]["step_size"] == text.strip()


@pytest.mark.parametrize("text", ["1/0", "8/", "/255", "1/-2", "nan", "inf", "8/inf", "a", "1/2/3"])
def test_what_is_no_number_is_named(text):
    with pytest.raises(ConfigError, match=f"^'{text}'"):
        number(text)


def test_fractions_are_numbers_in_settings_and_in_lists_of_them():
    found = override({}, ["attack.curve=[2/255,8/255]", "name=1/2"])
    made = build(Asked, found, "x")
    assert made.attack.curve == (2 / 255, 8 / 255) and made.name == "1/2"
    assert build(Asked, {"name": "", "options": {"a": {"b": "1/4"}}}, "x").options["a"]["b"] == 0.25
    with pytest.raises(ConfigError, match=r"x: attack: curve = '1/0' is divided by 0"):
        build(Asked, {"name": "", "attack": {"curve": ["1/0"]}}, "x")


def test_nested_mappings_become_nested_parts():
    made = build(Asked, {"name": "run", "attack": {"steps": 3}}, "file")
    assert made == Asked(name="run", attack=Attack(steps=3))


def test_a_part_that_is_built_already_is_taken_as_it_is():
    assert build(Asked, {"name": "run", "attack": Attack(steps=3)}, "x").attack.steps == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"name": "x", "atack": {}},
            "file: unknown key 'atack' (did you mean 'attack'?); known: attack, name, options",
        ),
        (
            {"name": "x", "attack": {"step": 1}},
            "file: attack: unknown key 'step' (did you mean 'steps'?); "
            "known: curve, loss, step_size, steps",
        ),
        ({"name": "x", "made": "there"}, "file: unknown key 'made'; known: attack, name, options"),
        ({}, "file: name is missing"),
        ({"name": 3}, "file: name = 3: Input should be a valid string"),
        ({"name": "x", "attack": 3}, "file: attack = 3: Input should be a dictionary"),
        ({"name": "x", "attack": {"steps": "many"}}, "file: attack: steps = 'many': "),
        ({"name": "x", "attack": {"steps": 1.5}}, "file: attack: steps = 1.5: "),
        ({"name": "x", "attack": {"loss": "cw"}}, "file: attack: loss = 'cw': "),
        (
            {"name": "x", "attack": {"steps": 0}},
            "steps must be at least 1, not 0",
        ),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(values, message):
    with pytest.raises(ConfigError) as error:
        build(Asked, values, "file")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"step_size": "nan"}, "step_size = 'nan'"),
        ({"step_size": float("inf")}, "step_size = inf"),
        ({"curve": [0.1, "-inf"]}, "curve = "),
    ],
)
def test_a_number_that_is_not_finite_is_refused(values, place):
    with pytest.raises(ConfigError, match=f"x: {place}.*must be finite"):
        build(Attack, values, "x")


def test_a_number_deep_in_options_must_be_finite_too():
    with pytest.raises(ConfigError, match=r"options = .*must be finite"):
        build(Asked, {"name": "x", "options": {"a": {"b": float("nan")}}}, "x")


def test_a_file_is_read_as_toml(tmp_path):
    (tmp_path / "run.toml").write_text('name = "é"\n[attack]\nsteps = 3\n', encoding="utf-8")
    assert from_file(tmp_path / "run.toml") == {"name": "é", "attack": {"steps": 3}}


@pytest.mark.parametrize("content", [b"name = ", b"a = 1\na = 2", b'name = "\xff"'])
def test_a_file_that_is_no_toml_is_a_clear_error(tmp_path, content):
    (tmp_path / "run.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"run\.toml' cannot be read: "):
        from_file(tmp_path / "run.toml")


def test_a_missing_file_and_a_folder_are_clear_errors(tmp_path):
    with pytest.raises(ConfigError, match=r"run\.toml' does not exist"):
        from_file(tmp_path / "run.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        from_file(tmp_path)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("7", 7),
        ("0.5", 0.5),
        ("true", True),
        ("[0.1, 0.2]", [0.1, 0.2]),
        ('"7"', "7"),
        ("mnist", "mnist"),
        (" a b ", "a b"),
        ("x=y", "x=y"),
        ("", ""),
    ],
)
def test_a_setting_is_toml_where_it_can_be_and_text_otherwise(setting, value):
    assert override({}, [f"a.b={setting}"]) == {"a": {"b": value}}


def test_settings_go_over_a_file_key_by_key_and_the_last_one_counts():
    values = {"a": {"b": 1, "c": 2}, "d": 3}
    made = override(values, ["a.b=5", "a.b=6", "d.e=7"])
    assert made == {"a": {"b": 6, "c": 2}, "d": {"e": 7}}
    assert values == {"a": {"b": 1, "c": 2}, "d": 3}


@pytest.mark.parametrize("setting", ["a", "a.b", "=3", "a..b=3", ".a=3", ""])
def test_a_setting_of_another_form_is_refused(setting):
    with pytest.raises(ConfigError, match=r"is not of the form a\.b=value"):
        override({}, [setting])


trees = st.recursive(
    st.integers(),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
mappings = st.dictionaries(st.sampled_from("abc"), trees, max_size=3)


@given(mappings, mappings)
def test_what_is_merged_over_stands(first, second):
    made = merge(first, second)
    assert merge(made, second) == made
    assert set(made) == set(first) | set(second)
    assert merge({}, first) == first == merge(first, {})


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("fgsm", ("fgsm", {})),
        ("pgd:steps=40,restarts=3", ("pgd", {"steps": 40, "restarts": 3})),
        (" pgd : steps = 40 , loss = dlr ", ("pgd", {"steps": 40, "loss": "dlr"})),
        ("pgd:", ("pgd", {})),
        ("badge:colour=[255, 0, 0],size=3", ("badge", {"colour": [255, 0, 0], "size": 3})),
        (
            'badnets:count=3,trigger={corner="top-left",size=4}',
            ("badnets", {"count": 3, "trigger": {"corner": "top-left", "size": 4}}),
        ),
    ],
)
def test_a_part_is_a_name_with_fields(text, part):
    assert parse_part(text) == part


@pytest.mark.parametrize("text", ["pgd:40", "pgd:steps=40,restarts"])
def test_a_field_without_a_value_is_refused(text):
    with pytest.raises(ConfigError, match="is not of the form field=value"):
        parse_part(text)

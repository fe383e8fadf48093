from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from purpleteam.core.errors import ConfigError
from purpleteam.threats import load_system, system_from


def test_a_system_is_read_from_a_file(tmp_path: Path, small):
    path = tmp_path / "system.yaml"
    path.write_text(yaml.safe_dump(small))
    system = load_system(path)
    assert system.name == "small"
    assert system.crosses(system.flows[0]) == ("out", "in")
    assert system.crosses(system.flows[1]) is None


@pytest.mark.parametrize("key", ["level", "status", "residual", "verified"])
def test_what_is_derived_cannot_be_typed(bend, key):
    for section in ("threats", "mitigations"):
        with pytest.raises(ConfigError, match=f"unknown key '{key}'"):
            system_from(bend(section, 0, **{key: "low"}))


def test_a_level_cannot_be_typed_inside_the_ratings(bend):
    ratings = {"likelihood": "low", "impact": "low", "why": "x", "level": "note"}
    with pytest.raises(ConfigError, match="unknown key 'level'"):
        system_from(bend("threats", 0, inherent=ratings))


def test_an_unknown_section_is_refused_with_the_nearest(small):
    with pytest.raises(ConfigError, match="did you mean 'threats'"):
        system_from(small | {"threat": []})


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("threats", {"element": "fiel"}, "unknown element 'fiel'"),
        ("threats", {"mitigations": ["M-DIGETS"]}, "did you mean 'M-DIGEST'"),
        ("threats", {"id": "T-APP-T1"}, "threat id 'T-APP-T1' is not 'T-FILE-T'"),
        ("threats", {"stride": "X"}, "stride = 'X'"),
        ("threats", {"when": ["trainign"]}, "when.0 = 'trainign'"),
        ("mitigations", {"about": ["modle"]}, "about.0 = 'modle'"),
        ("threats", {"refs": {"cwe": ["CWE-1"]}}, "unknown reference 'CWE-1'"),
        ("threats", {"refs": {"cve": ["CVE-1"]}}, "unknown catalogue 'cve'"),
        ("threats", {"inherent": {"likelihood": "huge", "impact": "low", "why": ""}}, "huge"),
        ("mitigations", {"checks": {"all": ["Model Digest"]}}, "not of the form room.name"),
        ("mitigations", {"checks": {"all": ["a.b"], "any": ["a.c"]}}, "either `all` or `any`"),
        ("mitigations", {"effect": {"likelihood": -2}}, "likelihood"),
        ("mitigations", {"effect": {"likelihood": 1}}, "likelihood"),
        ("elements", {"zone": "nowhere"}, "unknown zone 'nowhere'"),
        ("flows", {"target": "ap"}, "unknown element 'ap'"),
        ("not_applicable", {"stride": ["T"]}, "file/T holds a threat"),
        ("not_applicable", {"reason": " "}, "has no reason"),
    ],
)
def test_nonsense_is_one_line_that_names_it(bend, section, values, message):
    with pytest.raises(ConfigError, match=message) as caught:
        system_from(bend(section, 0, **values))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("section", ["zones", "elements", "flows", "threats", "mitigations"])
def test_an_id_is_there_once(small, section):
    small[section].append(dict(small[section][0]))
    with pytest.raises(ConfigError, match="is there twice"):
        system_from(small)


def test_a_mitigation_that_no_threat_names_is_refused(bend):
    with pytest.raises(ConfigError, match="M-FORMAT is named by no threat"):
        system_from(bend("threats", 0, mitigations=["M-DIGEST"]))


@pytest.mark.parametrize("missing", ["reason", "by", "until"])
def test_an_acceptance_needs_a_reason_a_name_and_a_date(small, missing):
    accepted = {"threat": "T-FILE-T1", "reason": "a demo", "by": "us", "until": "2027-01-01"}
    accepted.pop(missing)
    with pytest.raises(ConfigError, match=missing):
        system_from(small | {"accepted": [accepted]})


def test_a_missing_file_is_one_clear_line(tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_system(tmp_path / "none.yaml")


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "!!python/object/apply:os.getcwd []"])
def test_what_is_no_plain_mapping_is_refused(tmp_path: Path, text: str):
    path = tmp_path / "system.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="is not"):
        load_system(path)


def test_naming_the_room_loads_no_parser_and_no_torch():
    heavy = "{'yaml', 'pydantic', 'torch'} & set(sys.modules)"
    code = f"import sys, purpleteam.threats as room; room.derive; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

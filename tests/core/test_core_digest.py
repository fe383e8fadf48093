"""One spelling for content, one name for each spelling."""

from __future__ import annotations

import hashlib
import json
import os

import pytest
from core_records import JSON
from hypothesis import given
from hypothesis import strategies as st

from purpleteam.core.digest import canonical_json, sha256_bytes, sha256_file, short_id


@given(JSON)
def test_canonical_json_says_the_same_as_its_value(value):
    assert json.loads(canonical_json(value)) == value


@given(st.dictionaries(st.text(max_size=3), st.integers()))
def test_the_order_of_keys_does_not_show(value):
    backwards = dict(reversed(value.items()))
    assert canonical_json(backwards) == canonical_json(value)


def test_canonical_json_is_short_and_sorted():
    assert canonical_json({"b": (1, 2.5), "a": "é"}) == '{"a":"é","b":[1,2.5]}'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_json_has_no_number_for_is_refused(value):
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"value": value})


@given(st.binary(max_size=8))
def test_a_file_name_that_is_no_utf8_can_be_written_and_read(raw):
    name = os.fsdecode(raw)
    line = canonical_json({"path": name}).encode()
    assert json.loads(line) == {"path": name}


@given(st.lists(st.binary(max_size=20), max_size=4))
def test_a_digest_is_over_the_parts_one_after_the_other(parts):
    assert sha256_bytes(*parts) == f"sha256:{hashlib.sha256(b''.join(parts)).hexdigest()}"


def test_a_file_has_the_digest_of_its_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256_file(tmp_path / "file") == sha256_bytes(b"abc")


def test_a_short_id_is_the_beginning_of_the_digest_of_the_content():
    whole = sha256_bytes(b'{"a":1}')
    assert short_id("m", {"a": 1}) == f"m-{whole.removeprefix('sha256:')[:10]}"

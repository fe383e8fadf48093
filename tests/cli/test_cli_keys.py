"""`purple keys`: a secret is shown once, where it was asked for, and never again."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_values import Purple


def test_a_key_is_printed_once_and_alone(purple: Purple) -> None:
    made = purple("keys", "add", "--note", "Ada", "--expires", "30d")
    token = made.out.strip()
    id, _, secret = token.partition(".")
    assert (made.code, made.err) == (0, "") and len(secret) == 43
    listed = purple("keys", "list")
    assert f"{id}  valid  predict" in listed.out and "Ada" in listed.out
    assert secret not in listed.out + Path("keys.jsonl").read_text("utf-8")


def test_a_key_is_revoked_by_its_id(purple: Purple) -> None:
    id = purple("keys", "add", "--json").json["id"]
    assert purple("keys", "revoke", id, "--json").json["id"] == id
    (row,) = purple("keys", "list", "--json").json["keys"]
    assert row["state"] == "revoked" and row["scopes"] == ["predict"] and "digest" not in row


def test_a_key_may_have_its_own_scopes_and_limits(purple: Purple) -> None:
    own = ("--scope", "metrics", "--scope", "predict", "--per-second", "1/2", "--per-day", "9")
    purple("keys", "add", *own, "--file", "other.json")
    (row,) = purple("keys", "list", "--file", "other.json", "--json").json["keys"]
    assert row["scopes"] == ["metrics", "predict"]
    assert (row["per_second"], row["per_day"], row["at_once"]) == (0.5, 9, None)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("list",), "keys 'keys.jsonl': no such file; make one: purple keys add"),
        (("revoke", "ada"), "no such file"),
        (("add", "--scope", "root"), "unknown scope 'root'; known: metrics, predict"),
        (("add", "--expires", "soon"), "expires 'soon' is none of 12h, 30d"),
        (("add", "--per-day", "0"), "per_day must be at least 1, not 0"),
        (("add", "--file", "none/keys.jsonl"), "cannot write 'none/keys.jsonl': No such file"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    purple: Purple, arguments: tuple[str, ...], reason: str
) -> None:
    ended = purple("keys", *arguments)
    assert ended.code == 2 and reason in ended.err and ended.err.count("\n") == 1
    assert not Path("keys.jsonl").exists()

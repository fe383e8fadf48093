"""The file of API keys: what is on it, who is let in by it, and what it never says."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from purpleteam.core.errors import ConfigError, UsageError
from purpleteam.serve import keys
from purpleteam.serve.counts import Allowance
from purpleteam.serve.keys import KeyRing, add, end_of, read, revoke

CONFINED = """
import resource, sys
from pathlib import Path
from purpleteam.serve import keys
keys.LOOK_SECONDS = 0
ring = keys.KeyRing(Path(sys.argv[1]), keys.Allowance())
resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
print("ready", flush=True)
found = [bool(ring.find(token)) for token in sys.stdin.readline().split()]
try:
    open(sys.argv[1])
except OSError:
    print("cannot open:", *found)
"""
ROW = '{"id": "a", "digest": "00", "created": "2026-11-30", "scopes": %s}'
NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.jsonl"


@pytest.fixture
def always_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "LOOK_SECONDS", 0.0)


def known(file: Path, token: str) -> bool:
    return KeyRing(file, Allowance()).find(token) is not None


def test_a_key_is_found_by_its_secret_and_by_nothing_else(file: Path) -> None:
    key, token = add(file, note="Ada")
    other = add(file)[1]
    found = KeyRing(file, Allowance()).find(token)
    assert found is not None and found[0] == key and key.scopes == ("predict",)
    wrong = (key.id, f"{key.id}.", token[:-1], f"{token}x", other[:9] + token[9:], "", ".", "é.é")
    assert not any(known(file, text) for text in wrong)


def test_the_file_has_no_secret_and_is_its_owners_alone(file: Path) -> None:
    secret = add(file)[1].partition(".")[2]
    assert secret not in file.read_text() and len(secret) == 43
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["keys.jsonl"]


def test_a_key_ends_when_it_was_to_end(file: Path) -> None:
    past, future = add(file, expires="2026-01-01")[1], add(file, expires="2999-01-01")[1]
    assert not known(file, past) and known(file, future)
    assert [key.state for key in read(file)] == ["expired", "valid"]


def test_a_revoked_key_is_refused_for_good(file: Path) -> None:
    key, token = add(file)
    first = revoke(file, key.id)
    assert not known(file, token) and revoke(file, key.id) == first
    with pytest.raises(UsageError, match=f"unknown key 'ada'; known: {key.id}"):
        revoke(file, "ada")


@pytest.mark.usefixtures("always_look")
def test_a_running_app_takes_up_new_keys_and_drops_revoked_ones(file: Path) -> None:
    first, token = add(file)
    ring = KeyRing(file, Allowance())
    second = add(file)[1]
    assert ring.find(token) and ring.find(second)
    revoke(file, first.id)
    assert not ring.find(token) and ring.find(second)


@pytest.mark.usefixtures("always_look")
def test_a_file_that_was_damaged_changes_nothing(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = add(file)[1]
    ring = KeyRing(file, Allowance())
    file.write_text("{}\n")
    assert ring.find(token) and "line 1: id is missing" in caplog.text
    file.unlink()
    assert ring.find(token) and "keys of before stay in force" in caplog.text


def test_what_is_added_is_seen_where_no_file_can_be_opened(file: Path) -> None:
    first, token = add(file)
    command = [sys.executable, "-c", CONFINED, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as app:
        assert app.stdin and app.stdout and app.stdout.readline() == b"ready\n"
        second = add(file)[1]
        revoke(file, first.id)
        answer = app.communicate(f"{token} {second}".encode())[0]
    assert answer == b"cannot open: False True\n"


def test_a_line_under_way_does_not_count(file: Path) -> None:
    token = add(file)[1]
    with file.open("a") as more:
        more.write('{"id": "half')
    assert known(file, token) and len(read(file)) == 1


def test_a_key_may_have_limits_of_its_own(file: Path) -> None:
    token = add(file, per_second=100.0)[1]
    found = KeyRing(file, Allowance(per_day=7)).find(token)
    assert found is not None and found[1] == Allowance(per_second=100, per_day=7)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("12h", "2026-12-01T00:00:00+00:00"),
        ("30d", "2026-12-30T12:00:00+00:00"),
        ("2w", "2026-12-14T12:00:00+00:00"),
        ("2027-01-31", "2027-01-31T00:00:00+00:00"),
        ("never", None),
    ],
)
def test_the_end_of_a_key_is_said_as_people_say_it(text: str, end: str | None) -> None:
    assert end_of(text, NOON) == end


@pytest.mark.parametrize("text", ["", "0d", "30", "-1d", "soon", "9999999999y"])
def test_another_end_is_refused(text: str, file: Path) -> None:
    with pytest.raises(UsageError, match=f"expires '{text}' is none of 12h, 30d"):
        add(file, expires=text)
    assert not file.exists()


def test_an_unknown_scope_is_refused(file: Path) -> None:
    with pytest.raises(ConfigError, match="unknown scope 'root'; known: metrics, predict"):
        add(file, scopes=["root"])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "line 1: is no JSON object"),
        ("[]", "line 1: is no JSON object"),
        ('{"id": "a"}', "line 1: digest is missing"),
        ('{"id": 1, "digest": "", "created": ""}', "line 1: id, digest and created must be texts"),
        (ROW % '["root"]', "line 1: unknown scope 'root'; known: metrics, predict"),
        (ROW % "7", "line 1: 'int' object is not iterable"),
        ('{"id": "a", "secret": "b"}', "line 1: unknown field 'secret'"),
    ],
)
def test_a_file_that_is_none_is_refused(file: Path, content: str, reason: str) -> None:
    file.write_text(content + "\n")
    with pytest.raises(ConfigError, match=reason):
        read(file)


def test_a_file_that_others_can_write_is_refused(file: Path) -> None:
    add(file)
    file.chmod(0o620)
    with pytest.raises(ConfigError, match="others can write it; take that away: chmod 600"):
        read(file)


def test_many_at_once_lose_no_key(file: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = [key.id for key, _ in pool.map(lambda _: add(file), range(20))]
    assert sorted(key.id for key in read(file)) == sorted(made)

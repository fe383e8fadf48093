"""The address of an app, and what of it is shown."""

from __future__ import annotations

import pytest

from purpleteam.core.errors import UsageError
from purpleteam.models.connection import Address, without_secrets


@pytest.mark.parametrize(
    ("url", "name", "port", "target"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000", 8000, "/predict"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000", 8000, "/predict"),
        ("HTTP://Host/predict", "http://host", 80, "/predict"),
        ("https://h.example/apps/digits/", "https://h.example/apps/digits", 443, None),
        ("http://[::1]:81/a b", "http://[::1]:81/a%20b", 81, "/a%20b/predict"),
        ("http://h?key=1&z=ü", "http://h", 80, "/predict?key=1&z=%C3%BC"),
    ],
)
def test_an_address_is_read(url, name, port, target):
    address = Address.of(url)
    assert (address.name, address.port) == (name, port)
    assert target is None or address.target("/predict") == target


def test_a_password_and_a_query_are_sent_and_not_shown():
    address = Address.of("https://me:s%40cret@h.example/?token=t0ken")
    assert address.authorisation == "Basic bWU6c0BjcmV0"
    assert address.target("/version") == "/version?token=t0ken"
    assert address.name == "https://h.example"
    assert "cret" not in repr(address)
    assert "t0ken" not in repr(address)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/x",
        "file:///etc/passwd",
        "http://",
        "http:///predict",
        "http://h:port",
        "http://h:99999",
        "http://[::1",
        "://h",
        "https://me:secret@:80/?token=t0ken",
        "ftp://me:secret@h/?token=t0ken",
    ],
)
def test_what_is_no_web_address_is_a_clear_error_without_its_secrets(url):
    with pytest.raises(UsageError, match="is not of the form http://HOST:PORT") as error:
        Address.of(url)
    assert "secret" not in str(error.value)
    assert "t0ken" not in str(error.value)


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("--model=http://user:secret@h:80/app?key=t0ken", "--model=http://h:80/app"),
        ("https://h?key=t0ken", "https://h"),
        ("http://h/of@all", "http://h/of@all"),
        ("who@h?x", "who@h?x"),
    ],
)
def test_a_command_is_kept_without_the_secrets_in_its_addresses(typed, kept):
    assert without_secrets(typed) == kept

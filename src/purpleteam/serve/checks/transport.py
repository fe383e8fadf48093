"""Checks of what a browser gets: the page of this release, on a way where nobody else writes."""

import json
import socket
import ssl
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata

from purpleteam.core.checks import Outcome
from purpleteam.core.digest import sha256_bytes
from purpleteam.core.errors import Absent
from purpleteam.serve.checks._web import (
    SECONDS,
    ask,
    endpoint,
    is_loopback,
    is_secure,
    left_out,
    other_page,
    trusting,
    web_check,
)

MONTH = 30 * 24 * 3600  # the least for which a browser is to remember that there is no plain HTTP


@contextmanager
def without_tls() -> Iterator[str]:
    """Run the app over plain HTTP, under an address that says https."""
    with left_out()() as url:
        yield url.replace("http:", "https:")


@web_check("web.tls", without_tls)
def tls(url: str) -> Outcome:
    """Away from the own machine the app speaks TLS 1.2 or later alone, with a valid certificate."""
    host, port = endpoint(url)
    if not is_secure(url):
        if is_loopback(host):
            raise Absent("plain HTTP that does not leave the machine")
        return Outcome(passed=False, measured="plain HTTP", threshold="https")
    certificate, version, remembered = "valid", None, ""
    try:
        with (
            socket.create_connection((host, port), timeout=SECONDS) as bare,
            trusting().wrap_socket(bare, server_hostname=host) as secure,
        ):
            version = secure.version()
        remembered = ask(url, "GET", "/").headers.get("strict-transport-security", "")
    except ssl.SSLError as error:
        certificate = str(error)
    old, plain = _speaks_old(host, port), _speaks_plain(host, port)
    measured = {
        "certificate": certificate,
        "version": version,
        "TLS 1.1 or older": old,
        "plain HTTP": plain,
        "strict-transport-security": remembered,
    }
    return Outcome(
        passed=version is not None and not old and not plain and _seconds(remembered) >= MONTH,
        measured=measured,
        threshold="valid, TLS 1.2 or later alone, remembered for a month or longer",
    )


@web_check("web.assets", left_out(around=other_page))
def assets(url: str) -> Outcome:
    """The page and its files are, byte for byte, those of this release."""
    from purpleteam.serve.app import read_assets

    try:
        served = json.loads(ask(url, "GET", "/version").body).get("version")
    except (ValueError, AttributeError):
        served = None
    if served is not None and served != (own := metadata.version("purpleteam")):
        raise Absent(f"the app is version {served}, whose page is not known to {own}")
    wrong, inputs = [], {}
    for path, content in read_assets().items():
        reply = ask(url, "GET", path, headers={})
        inputs[path] = sha256_bytes(reply.body)
        if reply.status != 200 or reply.body != content:
            wrong.append(path)
    measured = {"asked": len(inputs), "other": wrong}
    return Outcome(passed=not wrong, measured=measured, threshold="no other", inputs=inputs)


def _speaks_old(host: str, port: int) -> bool:
    """Return whether TLS 1.1 or older is spoken there."""
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname = False  # purple: allow PT023 until 2027-11-30 as only versions are asked
    old.verify_mode = ssl.CERT_NONE  # purple: allow PT023 until 2027-11-30 as the line above
    with warnings.catch_warnings():  # of the old versions, which nobody is to use
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with suppress(ssl.SSLError):
        old.set_ciphers("ALL:@SECLEVEL=0")  # else this side would refuse first
    with suppress(OSError), socket.create_connection((host, port), timeout=SECONDS) as bare:
        old.wrap_socket(bare).close()
        return True
    return False


def _speaks_plain(host: str, port: int) -> bool:
    """Return whether plain HTTP gets more there than a refusal."""
    with suppress(OSError), socket.create_connection((host, port), timeout=SECONDS) as bare:
        bare.sendall(b"GET / HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % host.encode())
        return bare.recv(12)[9:10] in (b"1", b"2")
    return False


def _seconds(policy: str) -> int:
    """Return for how long a browser remembers (RFC 6797, 6.1)."""
    for directive in policy.split(";"):
        name, _, value = directive.strip().partition("=")
        if name.lower() == "max-age" and value.strip('"').isdigit():
            return int(value.strip('"'))
    return 0

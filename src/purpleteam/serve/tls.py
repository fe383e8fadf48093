"""TLS of the app's own: a certificate with its key, looked at before anything listens."""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from purpleteam.core.errors import UsageError

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2: forward secret and authenticated (RFC 9325)
STRICT_TRANSPORT = {"strict-transport-security": "max-age=31536000"}  # RFC 6797: a year
USED_BY_OTHERS = 0o027  # the owner's group may read a key, as the groups of certificate tools do


@dataclass(frozen=True, kw_only=True)
class Tls:
    """TLS without a proxy in front: both files, or neither."""

    certificate: Path | None = None  # PEM: the certificate, then those that lead to its root
    key: Path | None = None  # PEM, without a password; others may not read it

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a certificate and its key are needed, both or neither")


def context_of(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return what a server needs to speak TLS 1.2 or 1.3 under this certificate.

    Args:
        certificate: a PEM file: the certificate, then those that lead to its root.
        key: a PEM file that nobody but its owner and group may read, without a password.

    Raises:
        UsageError: they are not there, are not of one pair, or are not valid today.
    """
    from cryptography import x509

    for path in (certificate, key):
        if not path.is_file():
            raise UsageError(f"TLS: {str(path)!r} does not exist, or is no file")
    if (mode := key.stat().st_mode & 0o777) & USED_BY_OTHERS:
        raise UsageError(f"TLS: others may use the key {str(key)!r} ({mode:o}): chmod 600 it")
    try:
        held = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
    except (OSError, ValueError):
        raise UsageError(f"TLS: {str(certificate)!r} holds no certificate in PEM") from None
    first, last = held.not_valid_before_utc, held.not_valid_after_utc
    if not first <= datetime.now(UTC) <= last:
        dates = f"from {first:%Y-%m-%d} to {last:%Y-%m-%d}"
        raise UsageError(f"TLS: {str(certificate)!r} is valid {dates}, not today")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    try:  # the empty password: nobody is asked for one
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        pair = f"{str(key)!r} is not the key of {str(certificate)!r}"
        if getattr(error, "reason", None) != "KEY_VALUES_MISMATCH":
            pair = f"{str(key)!r} holds no key in PEM, or one that needs a password"
        raise UsageError(f"TLS: {pair}") from None
    return context

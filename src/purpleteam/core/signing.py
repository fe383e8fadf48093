"""Keys, and what is signed with them: in-toto statements of the SHA-256 of files, in DSSE.

DSSE v1 (github.com/secure-systems-lab/dsse) around an in-toto Statement v1, by securesystemslib;
alone, or in the Sigstore bundle of OpenSSF model signing v1.0, which its library reads and writes.
Keys are PEM: PKCS #8 (RFC 5208) and SubjectPublicKeyInfo (RFC 5280), Ed25519 (RFC 8032) or ECDSA.
"""

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from purpleteam.core.digest import canonical_json
from purpleteam.core.errors import Refused, UsageError, reason_of, unknown
from purpleteam.core.machine import actor

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner, SSlibKey

FORMS = ("dsse", "bundle")
KEYS = ("ed25519", "p256")
"""Kinds of keys that are made; p256 is what the library of OpenSSF model signing 1.1 takes."""
SIGNATURE = ".sig"
PAYLOAD = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATES: Mapping[str, str] = {
    "dsse": "https://purpleteam/provenance/v1",
    "bundle": "https://model_signing/signature/v1.0",
}
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
OTHERS_READ, OTHERS_WRITE = 0o077, 0o022
MOST_BYTES = 64 << 20  # of a signature, or of a key


@dataclass(frozen=True, kw_only=True)
class Statement:
    """Which files are signed; what a signer says of them besides is empty in one of others."""

    files: Mapping[str, str]  # `sha256:<hex>` of each, by its path from the folder of `name`
    name: str  # of the model, run or folder
    kind: str = ""  # model, run, folder or file
    signer: str = ""  # who it is, by their own word
    signed_at: str = ""  # UTC, by their own clock
    code: str = ""  # what wrote a run: commit or wheel
    public_key: str = ""  # PEM
    key: str = ""  # fingerprint of the key that verified it; empty where none did


def default_key() -> Path:
    """Return where one's own key lies, unless another is named."""
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "purpleteam" / "signing.key"


def public_of(private: Path) -> Path:
    """Return where the public half of a key lies: beside it."""
    return private.with_suffix(".pub")


def make_key(path: Path, kind: str = "ed25519") -> str:
    """Write a new key, which its owner alone can read, and FILE.pub; return its fingerprint.

    Raises:
        UsageError: there is one already, or it would lie where it is passed on: in a git work
            tree or a run folder.
    """
    if path.suffix == ".pub":
        raise UsageError(f"{str(path)!r} is the name of a public key; name it without .pub")
    _stays(path, f"--out {default_key()}")
    private, public = new_key(kind)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        for file, content, mode in ((path, private, 0o600), (public_of(path), public, 0o644)):
            with os.fdopen(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "wb") as new:
                new.write(content)
    except FileExistsError as error:
        kept = "is there already, and is not written over; name another with --out"
        raise UsageError(f"{str(error.filename)!r} {kept}") from None
    except OSError as error:
        raise UsageError(f"cannot write {str(path)!r}: {reason_of(error)}") from None
    return fingerprint(public)


def new_key(kind: str = "ed25519") -> tuple[bytes, bytes]:
    """Return the private and the public half of a new key, in PEM."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    if kind not in KEYS:
        raise UsageError(unknown("kind of key", kind, KEYS))
    made: Any = ed25519.Ed25519PrivateKey.generate()
    if kind == "p256":
        made = ec.generate_private_key(ec.SECP256R1())
    pem, plain = form.Encoding.PEM, form.NoEncryption()
    private = made.private_bytes(pem, form.PrivateFormat.PKCS8, plain)
    return private, made.public_key().public_bytes(pem, form.PublicFormat.SubjectPublicKeyInfo)


def fingerprint(public: bytes) -> str:
    """Return the name of a public key in PEM: what `sha256sum` says of its file."""
    return f"sha256:{hashlib.sha256(public).hexdigest()}"


def private_key(path: Path) -> "CryptoSigner":
    """Read a key that nobody but its owner can read, and that does not lie where it is passed on.

    No message holds anything of it.
    """
    from cryptography.exceptions import UnsupportedAlgorithm

    _stays(path, f"mv {path} {default_key()}")
    content = _read(path, "key", OTHERS_READ, "others can read it; take that away: chmod 600")
    try:
        return signer_of(content)
    except TypeError:
        raise UsageError(f"key {str(path)!r} is encrypted, and nobody is asked here") from None
    except (ValueError, UnsupportedAlgorithm):
        pem = "is no private key in PEM that can sign; make one: purple keygen"
        raise UsageError(f"key {str(path)!r} {pem}") from None


def signer_of(private: bytes) -> "CryptoSigner":
    """Return what signs with a private key in PEM."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.signer import CryptoSigner

    key: Any = load_pem_private_key(private, None)
    return CryptoSigner(key, _named(key.public_key()))


def public_key(path: Path) -> "SSlibKey":
    """Read a public key that nobody but its owner can exchange."""
    others = "others can write it, and so exchange it; take that away: chmod 644"
    try:
        return _key_of(_read(path, "public key", OTHERS_WRITE, others))
    except ValueError:
        raise UsageError(f"{str(path)!r} is no public key in PEM, such as FILE.pub") from None


def sign(statement: Statement, key: "CryptoSigner", form: str = "dsse") -> bytes:
    """Return a signature of these files, with who signs and when where it does not say."""
    if form not in FORMS:
        raise UsageError(unknown("form", form, FORMS))
    from securesystemslib.dsse import Envelope

    public = key.public_key.unrecognized_fields["pem"]
    now = datetime.now(UTC).isoformat(timespec="seconds")
    said = {"kind": statement.kind, "name": statement.name, "public_key": public}
    said |= {"signer": statement.signer or actor(), "signed_at": statement.signed_at or now}
    said |= {"code": statement.code} if statement.code else {}
    digests = {name: whole.partition(":")[2] for name, whole in sorted(statement.files.items())}
    subject = [{"name": name, "digest": {"sha256": hexed}} for name, hexed in digests.items()]
    predicate: dict[str, Any] = {"provenance": said}
    if form == "bundle":
        root = hashlib.sha256(bytes.fromhex("".join(digests.values()))).hexdigest()
        subject = [{"name": statement.name, "digest": {"sha256": root}}]
        predicate["serialization"] = {
            "method": "files",
            "hash_type": "sha256",
            "allow_symlinks": False,
            "ignore_paths": [],
        }
        predicate["resources"] = [
            {"name": name, "algorithm": "sha256", "digest": hexed}
            for name, hexed in digests.items()
        ]
    whole = {"_type": STATEMENT, "subject": subject, "predicateType": PREDICATES[form]}
    payload = canonical_json(whole | {"predicate": predicate}).encode()
    envelope = Envelope(payload, PAYLOAD, {})
    signature = bytes.fromhex(envelope.sign(key).signature)
    return _written(payload, signature, key.public_key.keyid, form)


def opened(content: bytes, key: "SSlibKey | None" = None) -> Statement:
    """Return what a signature says, verified by a key, else by the one that it carries, if any.

    Of what `sign` wrote, every byte counts; of what others wrote, all that is signed.

    Raises:
        Refused: it is no signature, it was changed, or another key signed it.
    """
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import UnverifiedSignatureError
    from securesystemslib.signer import Signature

    try:
        outer = json.loads(content)
        form = "bundle" if "dsseEnvelope" in outer else "dsse"
        envelope = outer["dsseEnvelope"] if form == "bundle" else outer
        payload = base64.b64decode(envelope["payload"], validate=True)
        (one,) = envelope["signatures"]
        signature = base64.b64decode(one["sig"], validate=True)
        statement = _statement(json.loads(payload))
        carried = _key_of(statement.public_key.encode()) if statement.public_key else None
        hint = f"sha256:{one.get('keyid', '')}"
        is_ours = _written(payload, signature, hint, form) == content
        known = envelope["payloadType"] == PAYLOAD and outer.get("mediaType", BUNDLE) == BUNDLE
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Refused(f"it is no signature, or a damaged one: {reason_of(error)}") from None
    # Ours carries its key: where one of the two is gone, a byte of it was changed.
    if not known or (carried.keyid if carried else None) != (hint if is_ours else None):
        raise Refused("it is no signature, or it was changed after it was made")
    by = key or carried
    if by is None:
        return statement
    if carried and carried.keyid != by.keyid:
        raise Refused(f"it is signed by the key {carried.keyid}, not by {by.keyid}")
    pae = Envelope(payload, PAYLOAD, {}).pae()
    try:
        by.verify_signature(Signature(by.keyid, signature.hex()), pae)
    except UnverifiedSignatureError:
        raise Refused(f"its signature is not of the key {by.keyid}") from None
    return replace(statement, key=by.keyid)


def read_signature(path: Path) -> bytes:
    """Return the content of a signature's file, which has a bounded size."""
    return _read(path, "signature", 0, "")


def _statement(whole: dict[str, Any]) -> Statement:
    """Read an in-toto statement; whatever is amiss with it is an error of its kind."""
    predicate, subject = whole["predicate"], whole["subject"]
    if whole["_type"] != STATEMENT or whole["predicateType"] not in PREDICATES.values():
        raise ValueError(f"a statement of {whole['predicateType']} is not known")
    said = dict(predicate.get("provenance", {}))
    rows = [(row["name"], row["digest"]["sha256"]) for row in subject]
    if whole["predicateType"] == PREDICATES["bundle"]:
        ((name, root),) = rows
        said["name"] = said.get("name", name)
        if predicate["serialization"]["method"] != "files":
            raise ValueError("files that were hashed in pieces are not compared here")
        rows = []
        for row in predicate["resources"]:
            if row["algorithm"] != "sha256":
                raise ValueError(f"digests by {row['algorithm']} are not compared here")
            rows.append((row["name"], row["digest"]))
        if hashlib.sha256(bytes.fromhex("".join(hexed for _, hexed in rows))).hexdigest() != root:
            raise ValueError("its digest is not that of its files")
    files = {str(name): f"sha256:{hexed}" for name, hexed in rows}
    if not files or len(files) != len(rows):
        raise ValueError("it names no file, or one twice")
    known = ("kind", "name", "signer", "signed_at", "code", "public_key")
    return Statement(files=files, **{key: str(said.get(key, "")) for key in known})


def _written(payload: bytes, signature: bytes, key: str, form: str) -> bytes:
    """Return the one spelling of a signature's file."""
    hint = key.partition(":")[2]
    one = {"sig": base64.b64encode(signature).decode(), "keyid": hint}
    envelope: dict[str, Any] = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD,
        "signatures": [one],
    }
    if form == "bundle":
        material = {"publicKey": {"hint": hint}, "tlogEntries": []}
        envelope = {"mediaType": BUNDLE, "verificationMaterial": material, "dsseEnvelope": envelope}
    return canonical_json(envelope).encode() + b"\n"


def _key_of(pem: bytes) -> "SSlibKey":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        return _named(load_pem_public_key(pem))
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from None


def _named(public: Any) -> "SSlibKey":
    """Return a public key under its fingerprint, with its PEM."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    from securesystemslib.signer import SSlibKey

    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    named = SSlibKey.from_crypto(public, keyid=fingerprint(pem))
    named.unrecognized_fields["pem"] = pem.decode()
    return named


def _stays(path: Path, remedy: str) -> None:
    """Refuse a place for a key that is passed on with what lies there."""
    for folder in path.absolute().resolve().parents:
        for mark, what in ((".git", "git work tree"), ("run.json", "run folder")):
            if (folder / mark).exists():
                inside = f"{str(path)!r} is in the {what} {str(folder)!r}, and would travel with it"
                raise UsageError(f"{inside}; keep it elsewhere: {remedy}")


def _read(path: Path, what: str, forbidden: int, why: str) -> bytes:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & forbidden and os.name == "posix":
                raise UsageError(f"{what} {str(path)!r}: {why}")
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        missing = "no such file; make one: purple keygen" if "key" in what else "no such file"
        told = missing if isinstance(error, FileNotFoundError) else error.strerror
        raise UsageError(f"{what} {str(path)!r}: {told}") from None
    if len(content) > MOST_BYTES:
        raise UsageError(f"{what} {str(path)!r} has more than {MOST_BYTES >> 20} MB")
    return content

"""purple keygen, sign: a key of one's own, and what it vouches for."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from purpleteam.cli.build import Answer
from purpleteam.core import provenance, signing
from purpleteam.verbs import options
from purpleteam.verbs.verb import Option

Out = Annotated[Path | None, options.OUT]
Target = Annotated[str, Option(name="PATH", help="")]


def keygen(
    *,
    out: Out = None,
    kind: Annotated[str, "ed25519, or p256, for the tools of OpenSSF model signing."] = "ed25519",
) -> Answer:
    """Make a key to sign with, and FILE.pub, by which others tell your signatures.

    It goes to ~/.config/purpleteam/signing.key unless --out names a file, which can be in no git
    work tree and no run. It is not encrypted: nobody but you can read the file.
    """
    path = out or signing.default_key()
    key, public = signing.make_key(path, kind), signing.public_of(path)
    values = {"key": key, "private": str(path), "public": str(public)}
    return Answer(values=values, shown=[f"{path}\n{public}: {key}"])


def sign(
    path: Target,
    *,
    key: Annotated[
        Path | None, "The private key; ~/.config/purpleteam/signing.key by default."
    ] = None,
    by: Annotated[str | None, "Who you are, in your own word; your login by default."] = None,
    form: Annotated[str, "dsse, or bundle, as OpenSSF model signing has it."] = "dsse",
    out: Out = None,
) -> Answer:
    """Sign a run, a stored model, a folder of images or a file: SHA-256 digests and your key.

    The signature of a run lies in it, as run.sig; any other beside what it is of, as NAME.sig;
    `purple verify` looks there. --out puts it elsewhere.
    """
    file, statement = provenance.sign_subject(path, key, signer=by or "", form=form, out=out)
    who = f"by {statement.signer}, {statement.signed_at}, key {statement.key}"
    shown = [f"{file}: the {len(statement.files)} files of {statement.kind} {path}, {who}"]
    return Answer(values={"signature": str(file), **asdict(statement)}, shown=shown)

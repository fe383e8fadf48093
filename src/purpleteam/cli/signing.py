"""purple keygen, sign, bom: a key of one's own, what it vouches for, what a model is made of."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from purpleteam.cli.build import Answer
from purpleteam.core import provenance, signing
from purpleteam.verbs import options
from purpleteam.verbs.outputs import file_to_write, json_text, write_answer
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
    shown = [f"{file}: {statement.kind} {path}, files: {len(statement.files)}, {who}"]
    return Answer(values={"signature": str(file), **asdict(statement)}, shown=shown)


def bom(
    model: Annotated[str, Option(name="MODEL", help="")],
    *,
    run: Annotated[Path | None, "The run that measured it; its numbers go into the card."] = None,
    out: Out = None,
) -> Answer:
    """Write a model's bill of materials: CycloneDX 1.6, with a card of measured numbers."""
    from purpleteam.core.bom import bill_of_materials
    from purpleteam.core.cards import find_stored

    target, whole = file_to_write(out), bill_of_materials(find_stored(model), run)
    if target is None:
        return Answer(values=whole, shown=[json_text(whole, indent=1)])
    write_answer(target, whole)
    told = whole["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]
    numbers = len(told["performanceMetrics"])
    shown = [f"{target}: {model}, {numbers} measured numbers, {len(whole['components'])} materials"]
    return Answer(values={"bom": str(target), "serial": whole["serialNumber"]}, shown=shown)

"""purple keygen, sign, bom, trace: make a key, sign with it, say what a model is made of."""

from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from purpleteam.cli.build import Answer
from purpleteam.cli.runs import EXIT_CODES
from purpleteam.core import provenance, signing
from purpleteam.core.verification import Part, Verdict, Verification
from purpleteam.verbs import options
from purpleteam.verbs.outputs import file_to_write, json_text, write_answer
from purpleteam.verbs.result import table
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
    """Write a model's bill of materials: CycloneDX 1.6, with a card of measured numbers.

    Of a file without a card it names the digest, and says that no more is known.
    """
    from purpleteam.core.bom import bill_of_materials
    from purpleteam.core.cards import find_stored

    bare = Path(model).is_file() and not Path(model).with_suffix(".json").is_file()
    of = Path(model) if bare else find_stored(model)
    target, whole = file_to_write(out), bill_of_materials(of, run)
    if target is None:
        return Answer(values=whole, shown=[json_text(whole, indent=1)])
    write_answer(target, whole)
    told = whole["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]
    numbers = len(told["performanceMetrics"])
    shown = [f"{target}: {model}, {numbers} measured numbers, {len(whole['components'])} materials"]
    return Answer(values={"bom": str(target), "serial": whole["serialNumber"]}, shown=shown)


def trace(
    identity: Annotated[str, Option(name="ANSWER", help="")],
    *,
    run: Annotated[Path, Option(kind=Path, help="The run that trained the model.")],
    log: Annotated[Path | None, "The app's audit log, where ANSWER is the id of an answer."] = None,
    key: Annotated[Path | None, "The public key that must have signed the run."] = None,
) -> Answer:
    """Follow an answer of the app back: its model, the run that made it, data, code, signer.

    ANSWER is the id that the answer carried (x-request-id), looked up in --log; without --log it is
    the identity of a model, as /version tells it.
    """
    from purpleteam.core.lineage import PROVES, lineage, model_with

    parts, wanted = list[Part](), identity.removeprefix("sha256:")
    if log is not None:
        from purpleteam.serve.audit.verify import answer_in, verify_log

        number, told = answer_in(log, identity)
        wanted, looked = str(told.get("model")), verify_log(log)
        signed = number <= looked.signed and looked.verdict == "pass"
        facts = {"label": told.get("label"), "refused as": told.get("reason")}
        with suppress(KeyError, TypeError, ValueError, OverflowError, OSError):  # of a false log
            facts["at"] = datetime.fromtimestamp(told["time"], UTC).isoformat(" ", "seconds")
        said = ", ".join(f"{name} {fact}" for name, fact in facts.items() if fact is not None)
        verdict: Verdict = "pass" if signed else "fail" if looked.verdict == "fail" else "unknown"
        parts.append(Part("answer", verdict, f"line {number} of {log}: {said}, model {wanted}"))
    parts += lineage(model_with(wanted, run), run, key)
    whole = Verification(tuple(parts), "", PROVES)
    lines = table([(part.verdict, part.name, part.message) for part in parts])
    values = {"answer": identity, "run": str(run), **whole.to_json()}
    return Answer(values=values, shown=[*lines, PROVES], exit_code=EXIT_CODES[whole.verdict])

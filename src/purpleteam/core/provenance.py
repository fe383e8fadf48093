"""Who vouches for a model, a run or a dataset since when, and what that does not cover.

A signature is of SHA-256 digests: of a model's card, weights and ONNX file, of every file of a run
or of a folder of images. It lies in the run, or beside what it is of, and never covers a signature.
"""

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from purpleteam.core.cards import FORMATS, StoredModel, find_stored, zoo_names
from purpleteam.core.checks import CHECKS, Check, Outcome, Target
from purpleteam.core.digest import sha256_file
from purpleteam.core.errors import PurpleError, Refused, UsageError, reason_of
from purpleteam.core.revision import Revision
from purpleteam.core.runfolder import RunFolder
from purpleteam.core.signing import (
    SIGNATURE,
    Statement,
    default_key,
    new_key,
    opened,
    private_key,
    public_key,
    public_of,
    read_signature,
    sign,
    signer_of,
)
from purpleteam.core.verification import Part, Verification, part_of, verify

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner, SSlibKey

ALWAYS = (
    "whether what is signed is true or harmless: a signature says whose it is",
    "who else has the key, and when it really was signed: name and time are the signer's word",
)
BESIDES = {
    "run": ("code, packages and images that the run read: their digests and versions alone",),
    "model": ("the training: the card's recipe, data digest and numbers are the signer's word",),
    "folder": ("where the files came from, and whether labels are right",),
}


PROVES = (
    "A pass says that whoever holds the key vouched for these very bytes, and that nothing was "
    "changed, lost or added since."
)


@dataclass(frozen=True)
class Subject:
    """What is signed, or to be."""

    kind: str  # run, model, folder or file
    root: Path  # the folder that its files' names count from
    files: tuple[str, ...]
    others: tuple[str, ...] = ()  # inside it, and never covered: signatures
    links: tuple[str, ...] = ()  # and what else is no plain file
    signature: Path = Path()  # where its signature lies, if there is one

    @property
    def name(self) -> str:
        """The name of the model, or of the folder or file."""
        whole = self.kind in ("run", "folder")
        return self.root.name if whole else self.signature.name.removesuffix(SIGNATURE)

    def stored(self) -> StoredModel:
        """Return the model that it is, the files those of its card; ModelError or Refused."""
        stored = find_stored(str(self.root / self.files[0]))
        stored.verify()
        return stored

    def signed_by(self, key: "CryptoSigner", signer: str = "", form: str = "dsse") -> bytes:
        """Return a signature of its files as they are now."""
        files = {name: sha256_file(self.root / name) for name in self.files}
        info = RunFolder.open(self.root).info if self.kind == "run" else {}
        code = "; ".join(map(str, Revision.all_of(info)))
        of = {"name": self.name, "kind": self.kind, "signer": signer, "code": code}
        return sign(Statement(files=files, **of), key, form)


@dataclass(frozen=True)
class Signed:
    """What a look at a signature says: parts as of `purple verify`, and what it leaves open."""

    parts: tuple[Part, ...]
    statement: Statement | None = None
    not_covered: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the fields that `purple verify --json` adds: `signed` and `not_covered`."""
        one = self.statement
        return {"signed": one and asdict(one), "not_covered": list(self.not_covered)}


def find_subject(reference: str | Path) -> Subject:
    """Return the run, stored model, folder or file that a path or a zoo name means."""
    path = Path(reference)
    if path.is_dir():
        root = path.resolve()
        kind = "run" if (root / "run.json").is_file() else "folder"
        beside = (
            root / f"run{SIGNATURE}" if kind == "run" else root.with_name(root.name + SIGNATURE)
        )
        files, others, links = _inside(root)
        return Subject(kind, root, files, others, links, beside)
    stem = path.with_suffix("") if path.suffix in FORMATS else path
    if str(reference) in zoo_names():
        stem = find_stored(str(reference)).stem
    beside = stem.absolute().with_name(stem.name + SIGNATURE) if stem.name else Path()
    names = tuple(sorted(f"{stem.name}{end}" for end in FORMATS))
    if sum(beside.with_name(name).is_file() for name in (*names, beside.name)) > 1:
        return Subject("model", beside.parent, names, signature=beside)
    if path.is_file():
        beside = path.absolute().with_name(path.name + SIGNATURE)
        return Subject("file", beside.parent, (path.name,), signature=beside)
    models = f"or a model: {', '.join(zoo_names())}"
    raise UsageError(f"{str(reference)!r} is no run, folder, file, {models}")


def sign_subject(
    reference: str | Path,
    key: Path | None = None,
    *,
    signer: str = "",
    form: str = "dsse",
    out: Path | None = None,
) -> tuple[Path, Statement]:
    """Sign a run, stored model, folder or file; return the signature's file and what it says.

    Args:
        reference: its path, or the name of a model of the zoo.
        key: the private key; by default one's own.
        signer: whose signature it is, in their own word; by default who is logged in.
        form: `dsse`, an envelope, or `bundle`, that of OpenSSF model signing.
        out: where the signature goes; by default where `verify` looks.

    Raises:
        Refused: a model is not that of its card; a run has not ended, or is not as it was left.
        UsageError: the key cannot be used, or something there is no plain file.
    """
    subject, path = find_subject(reference), key or default_key()
    signing = private_key(path)
    if subject.kind == "run":
        looked = verify(subject.root)
        for part in (*looked.of("fail"), *looked.of("unknown")):
            raise Refused(f"{str(reference)!r} is not signed: {part.name}: {part.message}")
    if subject.kind == "model":
        subject.stored()
    if subject.links or not subject.files:
        what = f"{subject.links[0]!r} is no plain file" if subject.links else "it holds no file"
        raise UsageError(f"{str(reference)!r} cannot be signed: {what}")
    if path.resolve() in {subject.root / name for name in subject.files}:
        raise UsageError(f"key {str(path)!r} is among the files to sign; keep it elsewhere")
    content, target = subject.signed_by(signing, signer, form), out or subject.signature
    try:
        target.write_bytes(content)
    except OSError as error:
        raise UsageError(f"cannot write {str(target)!r}: {reason_of(error)}") from None
    return target, opened(content)


def sign_models(run: Path, key: Path) -> str:
    """Sign each stored model of a run that this key has not signed yet; return the key's name."""
    public = private_key(key).public_key
    for file in sorted((run / "models").glob("[!.]*.safetensors")):
        try:
            require_signature(find_stored(str(file)), public)
        except Refused:
            sign_subject(file, key)
    return public.keyid


def sign_run(run: Path, key: Path) -> Statement:
    """Sign a run that has ended, and look at the signature; Refused where it does not hold."""
    _, statement = sign_subject(run, key)
    signed = verify_subject(find_subject(run), private_key(key).public_key)
    for part in signed.parts:
        if part.verdict != "pass":
            raise Refused(f"{str(run)!r} is not as it was just signed: {part.message}")
    return statement


def check_key(key: Path | None, run: Path) -> None:
    """Refuse, before work begins, to sign a run with a key, or to go on with a signed one.

    Raises:
        UsageError: the key cannot be used, or lies where it would travel with the run.
        Refused: the run is signed, and not by this key, or not as it was signed.
    """
    signer = None if key is None else private_key(key)
    if key is not None and key.resolve().is_relative_to(run.resolve()):
        raise UsageError(f"key {str(key)!r} is in the run {str(run)!r}; keep it elsewhere")
    if (run / f"run{SIGNATURE}").exists():
        if signer is None:
            remedy = f"go on with --sign KEY, or take run{SIGNATURE} away"
            raise Refused(f"{str(run)!r} is signed, and would not be as it was signed; {remedy}")
        for part in verify_subject(find_subject(run), signer.public_key).parts:
            if part.verdict != "pass":
                raise Refused(f"{str(run)!r} is not signed anew: {part.name}: {part.message}")


def verify_subject(
    subject: Subject, key: "Path | SSlibKey | None" = None, signature: Path | None = None
) -> Signed:
    """Look whether the files are as somebody signed them, and who that was.

    Args:
        subject: of `find_subject`.
        key: whose signature it must be, or its file; by default one's own key counts, and where
            another signed, or none is there, it is unknown whose signature it is.
        signature: its file; by default where `sign` puts it.
    """
    file = signature or subject.signature
    own = public_of(default_key())
    if not file.exists():
        told = f"nobody signed it: there is no {str(file)!r}"
        return Signed((Part("signature", "fail" if key or signature else "unknown", told),))
    trusted = public_key(own) if key is None and own.exists() else None
    if key is not None:
        trusted = public_key(key) if isinstance(key, Path) else key
    try:
        content = read_signature(file)
        statement = opened(content, trusted) if key else opened(content)
    except Refused as error:
        return Signed((Part("signature", "fail", f"{file.name}: {error}", (file.name,)),))
    since = f"since {statement.signed_at}" if statement.signed_at else "at a time it does not say"
    told = f"{statement.signer or 'somebody'}, {since}, by the key {statement.key or 'of others'}"
    told += f", written by {statement.code}" if statement.code else ""
    part = Part("signature", "pass", told)
    if trusted is None or statement.key != trusted.keyid:
        whose = "whose key that is, only a public key kept elsewhere tells: --key FILE.pub"
        part = Part("signature", "unknown", f"{told}; {whose}")
    wrong = list(_differing(subject, statement))
    files = f"files as they were signed: {len(statement.files)}"
    not_covered = (*subject.others, *BESIDES.get(subject.kind, ()), *ALWAYS)
    return Signed((part, part_of("signed", wrong, files)), statement, not_covered)


def verify_signed(
    reference: str | Path, key: Path | None = None, signature: Path | None = None
) -> tuple[Verification, Signed]:
    """Look at a stored model, a folder or a file: whether it is whole, and who signed it."""
    subject, parts = find_subject(reference), list[Part]()
    if subject.kind == "model":
        parts = [Part("card", "pass", "weights and ONNX file have the digests of the card")]
        try:
            subject.stored()
        except PurpleError as error:
            parts = [Part("card", "fail", reason_of(error))]
    signed = verify_subject(subject, key, signature)
    return Verification((*parts, *signed.parts), "", PROVES), signed


def require_signature(stored: StoredModel, key: "SSlibKey") -> Statement:
    """Refuse a model that is not signed by this key, going by the card that was read.

    Raises:
        Refused: there is no signature, it is of another key, or of other files.
    """
    stem = stored.stem
    file, card = stem.with_name(stem.name + SIGNATURE), stored.card
    problem = f"model {stem.name!r} is not signed by the key {key.keyid[:19]}..."
    if not file.is_file():
        raise Refused(f"{problem}: no {file.name} lies beside it; sign it: purple sign {stem}")
    try:
        statement = opened(read_signature(file), key)
    except Refused as error:
        raise Refused(f"{problem}: {error}") from None
    digests = (card.digest, card.onnx_digest, stored.card_digest)
    for name, digest in zip((f"{stem.name}{end}" for end in FORMATS), digests, strict=True):
        if statement.files.get(name) != digest:
            raise Refused(f"{problem}: {name} is not as it was signed")
    return statement


def _inside(root: Path) -> tuple[tuple[str, ...], ...]:
    """Return what is in a folder, by name: files, signatures, and what is neither."""
    files, others, links = list[str](), list[str](), list[str]()
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            links.append(name)
        elif path.is_file():
            (others if path.suffix == SIGNATURE else files).append(name)
    return tuple(files), tuple(others), tuple(links)


def _differing(subject: Subject, statement: Statement) -> Iterator[str]:
    """Yield each file that is not as it was signed: changed, lost or added."""
    for name, digest in sorted(statement.files.items()):
        path = subject.root / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            yield f"{name} leads elsewhere"
        elif not path.is_file():
            yield f"{name} is missing"
        elif sha256_file(path) != digest:
            yield f"{name} was changed"
    signed = statement.files.keys()
    yield from (f"{name} is not signed" for name in subject.files if name not in signed)
    yield from (f"{name} is no plain file" for name in subject.links)


@CHECKS.register("model.signature")
class ModelSignature(Check):
    """Each model is signed by the key that the operator names, or one that the package pins."""

    needs = ("model", "signer")

    def examine(self, target: Target) -> Outcome:
        path, key = target.model or Path(), public_key(target.signer or Path())
        wrong, inputs = list[str](), {"key": key.keyid}
        for file in sorted(path.glob("[!.]*.safetensors")) if path.is_dir() else [path]:
            stored = find_stored(str(file))
            inputs[stored.stem.name] = stored.card.digest
            try:
                stored.verify()
                if not stored.shipped:
                    require_signature(stored, key)
            except Refused as error:
                wrong.append(str(error))
        return Outcome(
            passed=len(inputs) > 1 and not wrong,
            measured={"models": len(inputs) - 1, "not signed": len(wrong)},
            threshold="a model at least, each signed",
            message="; ".join(wrong)[:300],
            inputs=inputs,
        )

    def bad_example(self, folder: Path) -> Target:
        """A model whose classes were exchanged on its card after it was signed."""
        shipped = find_stored("standard")
        for end in FORMATS:
            shutil.copy(shipped.stem.with_suffix(end), folder)
        model, card = find_subject(folder / shipped.weights.name), shipped.card
        key = _signed_anew(model, folder)
        replace(card, classes=card.classes[::-1]).write(folder / f"{model.name}.json")
        return Target(model=folder / shipped.weights.name, signer=key)


@CHECKS.register("run.signature")
class RunSignature(Check):
    """Every file of the run is as the holder of the key that the reader names signed it."""

    needs = ("run", "signer")

    def examine(self, target: Target) -> Outcome:
        run = find_subject(target.run or Path())
        signed = verify_subject(run, target.signer, target.signature)
        wrong = [part.message for part in signed.parts if part.verdict != "pass"]
        statement = signed.statement
        return Outcome(
            passed=not wrong,
            measured={"files": len(statement.files) if statement else 0},
            threshold="all files as they were signed",
            message="; ".join(wrong)[:300],
            inputs={"key": statement.key} if statement else {},
        )

    def bad_example(self, folder: Path) -> Target:
        """A run that was written anew by somebody who signed it with a key of their own."""
        run = RunFolder.create(folder / "run", {"dataset": "digits"})
        subject = find_subject(run.path)
        key = _signed_anew(subject, folder)
        _signed_anew(subject, folder / "run")
        return Target(run=run.path, signer=key)


def _signed_anew(subject: Subject, folder: Path) -> Path:
    """Sign with a new key, of which only the public half is kept, in `folder`; return its file."""
    private, public = new_key()
    subject.signature.write_bytes(subject.signed_by(signer_of(private)))
    file = folder / "signer.pub"
    file.write_bytes(public)
    file.chmod(0o644)
    return file

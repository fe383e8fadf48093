"""From a model back to the run that made it, its training data, its code, and who signed that."""

from collections.abc import Iterator
from pathlib import Path

from purpleteam.core.cards import StoredModel, find_stored, zoo_names
from purpleteam.core.errors import PurpleError, UsageError, reason_of
from purpleteam.core.provenance import find_subject, verify_subject
from purpleteam.core.records import notes_of
from purpleteam.core.revision import Revision
from purpleteam.core.runfolder import RunFolder, artefacts_of
from purpleteam.core.schema import DATASET
from purpleteam.core.verification import Part, verify

PROVES = (
    "A pass says that each step names the next by its digest, in files that are as they were left; "
    "whether those who wrote them told the truth, only a key that you trust says."
)


def model_with(identity: str, run: Path) -> StoredModel:
    """Return the model of a run, or of the package, whose identity begins so; else UsageError."""
    inside = sorted((run / "models").glob("[!.]*.safetensors"))
    for reference in (*map(str, inside), *zoo_names()):
        stored = find_stored(reference)
        if stored.card.identity.removeprefix("sha256:").startswith(identity):
            return stored
    looked = f"{len(inside)} models of {str(run)!r}, {', '.join(zoo_names())}"
    raise UsageError(f"no model with the identity {identity!r} is among: {looked}; name its --run")


def lineage(stored: StoredModel, run: Path, key: Path | None = None) -> Iterator[Part]:
    """Yield each step back from a model; `key` is the public key that must have signed the run."""
    card, folder, looked = stored.card, RunFolder.open(run), verify(run)
    yield _part("model", f"{card.name}, identity {card.identity}, weights {card.digest}", stored)
    records = folder.readable()
    made = card.digest in artefacts_of(records).values()
    wrong = [*looked.of("fail"), *looked.of("unknown")]
    if not made:
        yield Part("run", "fail", f"{run} did not write these weights")
    elif wrong:
        yield Part("run", wrong[0].verdict, f"{run}: {wrong[0].name}: {wrong[0].message}")
    else:
        told = f"{run} wrote these weights, asked by {folder.info.get('actor')}, as it was left"
        yield Part("run", "pass", told)
    splits = [note.facts["splits"]["train"] for note in notes_of(records, DATASET)]
    same = made and card.data_digest in [split["digest"] for split in splits]
    told = f"images and labels {card.data_digest}"
    told += f", {splits[0]['n']} of the run's training split" if same else ", by the card alone"
    yield Part("data", "pass" if same else "unknown", told)
    ran = Revision.all_of(folder.info)
    told = "; ".join(map(str, ran)) or "run.json does not say which code wrote it"
    yield Part("code", "pass" if ran and all(one.known for one in ran) else "unknown", told)
    yield from verify_subject(find_subject(run), key).parts


def _part(name: str, told: str, stored: StoredModel) -> Part:
    try:
        stored.verify()
    except PurpleError as error:
        return Part(name, "fail", reason_of(error))
    return Part(name, "pass", told)

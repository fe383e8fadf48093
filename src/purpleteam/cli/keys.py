"""purple keys: make, list and revoke the API keys of the app."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from purpleteam.cli.build import Answer
from purpleteam.verbs.result import table
from purpleteam.verbs.verb import Option

File = Annotated[Path, Option(kind=Path, help="The file of keys; see purple serve --keys.")]
FILE = Path("keys.jsonl")


def add(
    *,
    file: File = FILE,
    scopes: Annotated[
        list[str] | None,
        Option(
            name="--scope", kind=list[str], help="predict (the default) or metrics; repeatable."
        ),
    ] = None,
    expires: Annotated[str, "12h, 30d, 2w, 1y, a day such as 2027-01-31, or never."] = "1y",
    note: Annotated[str, "Whose it is."] = "",
    at_once: Annotated[int | None, "Its own limit of images at once."] = None,
    per_second: Annotated[float | None, "Its own limit of images a second."] = None,
    per_day: Annotated[int | None, "Its own limit of images a day."] = None,
) -> Answer:
    """Make a key and print it, this once: the file holds no more than its SHA-256."""
    from purpleteam.serve import keys

    own = {"at_once": at_once, "per_second": per_second, "per_day": per_day}
    key, token = keys.add(file, scopes or ["predict"], expires, note, **own)
    facts = {"key": token, "id": key.id, "scopes": list(key.scopes), "expires": key.expires}
    return Answer(values=facts, shown=[token])


def list_all(*, file: File = FILE) -> Answer:
    """List the keys of a file; with none of them, nobody gets in."""
    from purpleteam.serve import keys

    known = keys.read(file)
    rows = [
        (key.id, key.state, ",".join(key.scopes), key.expires or "never ends", key.note)
        for key in known
    ]
    told = [asdict(key) | {"state": key.state} for key in known]
    for row in told:
        del row["digest"]
    return Answer(values={"keys": told}, shown=table(rows) or [f"{file}: no keys"])


def revoke(id: Annotated[str, Option(name="ID", help="")], *, file: File = FILE) -> Answer:
    """Take a key's rights for good; a running app notices within seconds."""
    from purpleteam.serve import keys

    key = keys.revoke(file, id)
    return Answer(values={"id": key.id, "revoked": key.revoked}, shown=[f"{key.id} is revoked"])

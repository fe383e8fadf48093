"""threats: every check with its negative control, and the status of each threat of a system."""

import importlib
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from threading import Thread
from typing import Annotated, Any, Unpack
from urllib.parse import urlsplit

from purpleteam.core.address import without_secrets
from purpleteam.core.cards import find_stored
from purpleteam.core.checks import CHECKS, Check, Target, run_check
from purpleteam.core.errors import ModelError, UsageError
from purpleteam.core.progress import Progress
from purpleteam.core.records import CheckResult, Note
from purpleteam.core.runfolder import RunFolder
from purpleteam.core.schema import SYSTEM_MODEL
from purpleteam.verbs.options import Leaving
from purpleteam.verbs.result import Result, table
from purpleteam.verbs.verb import Option, verb

CHECKED = (
    *("core.verification", "core.provenance", "core.storage", "data.checks", "models.checks"),
    *("attacks.checks", "defences.checks", "privacy.checks", "scan.checks"),
    *("scan.packages.checks", "serve.checks"),
)
"""The modules whose import registers the checks of a room in CHECKS."""


@dataclass(frozen=True, kw_only=True, repr=False)
class ThreatsDerived(Result):
    """The verdict of each check, and the status that they give each threat."""

    stage = "threats"

    @property
    def exit_code(self) -> int:
        """1 where a check does not pass."""
        verdicts = [check["verdict"] for check in self.values.get("checks", ())]
        return int(any(verdict in ("fail", "error", "broken") for verdict in verdicts))

    def answer(self) -> dict[str, Any]:
        return super().answer() if "missing" not in self.values else self.to_json()

    def lines(self) -> list[str]:
        if "missing" in self.values:
            gaps = self.values["missing"].items()
            return [f"{kind}: {', '.join(map(str, gap)) or 'none'}" for kind, gap in gaps]
        checks, statuses = self.values["checks"], self.values["threats"]
        rows = [(c["verdict"], c["check"], c["message"] or c["proves"]) for c in checks]
        shown = [t for t in statuses if t["status"] != "not_applicable"]
        return table([*rows, *((t["status"], t["threat"], t["title"]) for t in shown)])


@verb(answers=True)
def threats(
    *,
    model: Annotated[Any, "A model, a file, or a folder of them."] = None,
    records_of: Annotated[
        Path | str | None,
        Option(name="--run", help="A run folder to check: its records and files."),
    ] = None,
    signer: Annotated[Path | str | None, "The public key that must have signed them."] = None,
    url: Annotated[str | None, "A running app on this machine."] = None,
    code: Annotated[Path | str | None, "Source code; the package itself by default."] = None,
    data: Annotated[Path | str | None, "Folder of the four IDX files."] = None,
    system: Annotated[Path | str | None, "Your own system, a YAML file."] = None,
    missing: Annotated[bool, "Only what no threat, mitigation or check covers."] = False,
    **given: Unpack[Leaving],
) -> ThreatsDerived:
    """Run every check with its negative control, and derive the status of each threat."""
    from importlib import resources

    from purpleteam import threats as room

    load_checks()
    described = room.load_system(None if system is None else Path(system))
    if missing:
        gaps = room.missing(described, known_checks=CHECKS)
        return ThreatsDerived(values={"missing": gaps})
    for name, path in (("--code", code), ("--data", data), ("--signer", signer)):
        if path is not None and not Path(path).exists():
            raise UsageError(f"{name} {str(path)!r} does not exist")
    weights: Path | None = None
    if model is not None:
        path = Path(model)
        weights = path if str(model) and path.exists() else find_stored(str(model)).weights
    run = None if records_of is None else RunFolder.open(Path(records_of)).path
    weights = weights or (run and run / "models")
    if url is not None:
        _check_answers(url)
    source = Path(code or str(resources.files("purpleteam")))
    images = None if data is None else Path(data)
    served = None
    if weights is not None and weights.is_file():
        with suppress(ModelError):  # a file without a card is no model that can be served
            served = find_stored(str(weights)).card.identity
    target = Target(
        code=source,
        data=images,
        model=weights,
        signer=None if signer is None else Path(signer),
        url=url,
        served_digest=served,
        run=run,
        packages=tuple(sys.path),
    )
    results = run_checks(lambda _: [target], given["progress"])
    statuses = room.derive(described, results, date.today())
    note = Note(name=SYSTEM_MODEL, facts=room.to_facts(described, statuses))
    values = {
        "threats": [row.to_json() | {"record": row.id, "id": row.threat} for row in statuses],
        "checks": [check.to_json() for check in results],
        "summary": room.summary(statuses),
    }
    return ThreatsDerived(values=values, records=(*results, note, *statuses))


def load_checks() -> None:
    """Register the checks of every room whose packages are installed."""
    for room in CHECKED:
        with suppress(ModuleNotFoundError):
            importlib.import_module(f"purpleteam.{room}")


def run_checks(
    targets: Callable[[type[Check]], list[Target]], progress: Progress
) -> list[CheckResult]:
    """Run every registered check on the targets that are for it.

    Those of the app mostly wait for its deadlines: they run in a thread beside the others.
    """
    results: dict[str, list[CheckResult]] = {}
    with progress.task("checks", len(CHECKS)) as task:

        def run(names: list[str]) -> None:
            for name in names:
                results[name] = [run_check(CHECKS[name](), of) for of in targets(CHECKS[name])]
                task.advance(1)

        of_app = [name for name in CHECKS if "url" in CHECKS[name].needs]
        beside = Thread(target=run, args=(of_app,), daemon=True)  # it does not hold up Ctrl-C
        beside.start()
        run([name for name in CHECKS if name not in of_app])
        beside.join()
    return [result for name in CHECKS for result in results[name]]


def _check_answers(url: str) -> None:
    """Refuse an address at which nothing answers: its checks would only say so one by one."""
    shown = without_secrets(url)
    try:
        parts = urlsplit(url)
        place = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
    except ValueError as error:
        raise UsageError(f"--url {shown!r} is no address: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"--url {shown!r} is no address such as http://127.0.0.1:8000")
    try:
        socket.create_connection(place, timeout=5).close()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"--url {shown!r} does not answer: {reason}") from None

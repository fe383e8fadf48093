"""Stage scan: the code and every model file of the run, as findings and SARIF."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

from purpleteam.core.digest import canonical_json, sha256_bytes, sha256_file
from purpleteam.core.records import Note, Record
from purpleteam.pipeline.work import Work
from purpleteam.scan.engine import scan
from purpleteam.scan.sarif import to_sarif

__all__ = ["code_path", "content_digest", "scan_code_and_models"]


def code_path(work: Work) -> Path:
    """Return the code that is under scan: the first path asked for, or the package itself."""
    asked = work.config.scan.paths
    return Path(asked[0]) if asked else Path(str(resources.files("purpleteam")))


def scan_code_and_models(work: Work) -> None:
    """Scan code and model files; what was skipped and what failed is recorded too."""
    paths = [Path(path) for path in work.config.scan.paths] or [code_path(work)]
    targets = [*paths, (work.run.path / "models").resolve()]  # named alike wherever the run is

    def look() -> list[Record]:
        found = scan(targets)
        facts = found.to_json()
        facts["findings"] = len(found.findings)
        facts["paths"] = [path.name for path in targets]
        note = Note(name="scan", facts=facts)
        sarif = work.run.path / "exports" / "scan.sarif"
        sarif.write_text(json.dumps(to_sarif(found), indent=2) + "\n", encoding="utf-8")
        return [*found.findings, note, work.run.artefact(sarif, note.id)]

    work.cell("scan", "scan", {"digests": content_digest(targets)}, look)


def content_digest(paths: list[Path]) -> str:
    """Return a digest over every file under the paths: another content is another cell."""
    files = [
        (path.name, sha256_file(path))
        for root in paths
        for path in sorted(root.rglob("*") if root.is_dir() else [root])
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    ]
    return sha256_bytes(canonical_json(files).encode())

"""Stage scan: the code and every model file of the run, as findings and SARIF."""

import importlib.util
import sys
from importlib import resources
from pathlib import Path

from purpleteam import verbs
from purpleteam.core.digest import canonical_json, sha256_bytes, sha256_file
from purpleteam.core.errors import ModelError
from purpleteam.core.factory import file_of, is_factory
from purpleteam.core.records import Record
from purpleteam.core.signing import SIGNATURE
from purpleteam.pipeline.state import Run


def code_paths(run: Run) -> list[Path]:
    """Return the code under scan: what is asked for, the brought model's, or the package itself."""
    if run.config.scan.paths:
        return [Path(path) for path in run.config.scan.paths]
    used = run.config.models.use
    if used is None:
        return [Path(str(resources.files("purpleteam")))]
    code = [name for name in (used, run.config.models.arch) if name and is_factory(name)]
    if not code:
        return []
    if (file := file_of(code[0])) is not None:
        return [file]
    module = code[0].rpartition(":")[0]
    spec = getattr(sys.modules.get(module), "__spec__", None) or importlib.util.find_spec(module)
    if spec is None:
        raise ModelError(f"the code of {code[0]!r} is not to be found")
    origin = Path(str(spec.origin))
    return [origin.parent if origin.name == "__init__.py" else origin]


def scan_code_and_models(run: Run) -> None:
    """Scan code and model files; what was skipped and what failed is recorded too."""
    asked, models = run.config.models, (run.folder.path / "models").resolve()
    brought = [Path(path) for path in (asked.weights, asked.use) if path and Path(path).is_file()]
    targets = [*code_paths(run), *brought]
    if any(models.iterdir()) or not targets:
        targets.append(models)  # resolved: named alike wherever the run is

    def look() -> tuple[Record, ...]:
        return verbs.scan(targets, run=run.folder, progress=run.progress).records

    run.cell("scan", "scan", {"digests": content_digest(targets)}, look)


def content_digest(paths: list[Path]) -> str:
    """Return a digest over every file under the paths: another content is another cell."""
    files = [
        (path.name, sha256_file(path))
        for root in paths
        for path in sorted(root.rglob("*") if root.is_dir() else [root])
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
        if path.suffix != SIGNATURE  # of what is digested here
    ]
    return sha256_bytes(canonical_json(files).encode())

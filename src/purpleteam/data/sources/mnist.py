"""MNIST (LeCun, Cortes, Burges 1998): found or fetched, and always verified.

Digests are of the content after decompression: mirrors differ in how they compress it.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from purpleteam.core.errors import DataError
from purpleteam.core.progress import SILENT, Progress
from purpleteam.data.idx import IDX_FILES, find_idx, has_idx, open_idx, read_four
from purpleteam.data.images import Dataset
from purpleteam.data.sources import DATASETS

_DIGESTS = (
    "sha256:ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "sha256:65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "sha256:0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "sha256:ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
)
MNIST_DIGESTS: Mapping[str, str] = dict(zip(IDX_FILES, _DIGESTS, strict=True))
MIRRORS = (  # in the order in which they are asked
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
TRAIN = 55_000  # images of the training file that train; its other 5,000 are the validation split


@dataclass(frozen=True)
class FileVerdict:
    """Whether one file is what it must be."""

    name: str
    expected: str
    found: str | None  # digest of the content, or None where it cannot be read
    verdict: Literal["pass", "fail", "error"]
    reason: str = ""


@DATASETS.register("mnist")
def load_mnist(
    folder: str | Path | None = None, *, download: bool = True, progress: Progress = SILENT
) -> Dataset:
    """Return MNIST: first 55,000 train, last 5,000 of the training file validation, 10,000 test.

    Raises:
        DataError: a file's content is not MNIST, or MNIST is nowhere and may not be fetched.
    """
    place = find_mnist(folder)
    if place is None:
        if not download:
            raise DataError(f"MNIST is not in {mnist_cache()}; try: purple data fetch mnist")
        place = fetch_mnist(progress=progress)
    files, training, test = read_four(place)
    for name, file in files.items():
        if file.digest != MNIST_DIGESTS[name]:
            raise DataError(f"{file.path}: not MNIST: {_differ(MNIST_DIGESTS[name], file.digest)}")
    return Dataset(
        name="mnist",
        train=training.part(0, TRAIN),
        validation=training.part(TRAIN),
        test=test,
        classes=tuple("0123456789"),
        origin={"folder": str(place), "files": dict(MNIST_DIGESTS), "licence": "CC BY-SA 3.0"},
    )


def fetch_mnist(
    folder: Path | None = None,
    *,
    mirrors: tuple[str, ...] = MIRRORS,
    timeout: float = 30.0,
    progress: Progress = SILENT,
) -> Path:
    """Fetch what is missing of MNIST into `folder` (default: the user's cache); return it."""
    from purpleteam.data.fetch import fetch_file  # HTTP is slow to import

    target = folder or mnist_cache()
    for name, digest in MNIST_DIGESTS.items():
        urls = tuple(f"{mirror.rstrip('/')}/{name}.gz" for mirror in mirrors)
        fetch_file(urls, target / f"{name}.gz", digest, timeout=timeout, progress=progress)
    return target


def verify_folder(
    folder: Path, digests: Mapping[str, str] = MNIST_DIGESTS
) -> tuple[FileVerdict, ...]:
    """Compare the content of each named file with its digest; nothing is raised for a no."""
    verdicts = []
    for name, expected in digests.items():
        try:
            actual = open_idx(find_idx(folder, name)).digest
        except DataError as error:
            verdicts.append(FileVerdict(name, expected, None, "error", str(error)))
            continue
        reason = "" if actual == expected else _differ(expected, actual)
        verdict: Literal["pass", "fail"] = "fail" if reason else "pass"
        verdicts.append(FileVerdict(name, expected, actual, verdict, reason))
    return tuple(verdicts)


def _differ(expected: str, actual: str) -> str:
    return f"expected {expected[:19]}..., found {actual[:19]}..."


def mnist_cache() -> Path:
    """Return the user's cache folder for MNIST; it need not exist."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "purpleteam" / "mnist"


def find_mnist(folder: str | Path | None = None) -> Path | None:
    """Return the folder that holds the files; one that is asked for must hold them."""
    base = folder if folder is not None else os.environ.get("PURPLETEAM_DATA") or None
    places = [Path(base), Path(base) / "mnist"] if base is not None else []
    places += [mnist_cache()] if folder is None else []
    place = next(filter(has_idx, places), None)
    if place is None and folder is not None:
        raise DataError(f"{folder}: holds no MNIST; expected {', '.join(IDX_FILES)}")
    return place

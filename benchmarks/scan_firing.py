"""Proof that a payload runs: each file is loaded in a throwaway folder by what it is made for.

The child has limits of time and of the size of files, and nothing of the machine's but its files.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECONDS = 30


def _every_pickle(path: Path) -> None:
    with path.open("rb") as file:
        while True:
            pickle.load(file)  # noqa: S301 - that it runs is the point


def _after_a_line(path: Path) -> None:
    with path.open("rb") as file:
        file.readline()
        pickle.load(file)  # noqa: S301


def _unpacked(path: Path) -> None:
    """Unpack as a server of models does, to any depth, and load what is there as a pickle."""
    target = Path(tempfile.mkdtemp(dir="."))
    packed = [path]
    while packed:
        one = packed.pop()
        if zipfile.is_zipfile(one) or tarfile.is_tarfile(one):
            form = "zip" if zipfile.is_zipfile(one) else "tar"
            inner = Path(tempfile.mkdtemp(dir=target))
            if form == "zip":
                shutil.unpack_archive(one, inner, "zip")
            else:
                with tarfile.open(one) as archive:
                    archive.extractall(inner, filter="data")
            packed += [file for file in inner.rglob("*") if file.is_file()]
        else:
            with contextlib.suppress(Exception):
                pickle.loads(one.read_bytes())  # noqa: S301


def _template(path: Path) -> None:
    import jinja2

    text = path.read_bytes().partition(b"{{")[2].decode()
    jinja2.Environment().from_string("{{" + text).render()  # noqa: S701 - as llama-cpp-python did


def _loaders() -> dict[str, Callable[[Path], object]]:
    import joblib
    import numpy as np
    import torch
    import torch.utils.cpp_extension
    import yaml
    from torch.package import PackageImporter

    return {
        "pickle": lambda path: pickle.loads(path.read_bytes()),  # noqa: S301
        "every pickle": _every_pickle,
        "after a line": _after_a_line,
        "torch": lambda path: torch.load(path, weights_only=False),
        "jit": torch.jit.load,
        "package": lambda path: PackageImporter(str(path)).import_module("net"),
        "joblib": joblib.load,
        "numpy": lambda path: [*np.atleast_1d(_all(np.load(path, allow_pickle=True)))],
        "yaml": lambda path: yaml.unsafe_load(path.read_text()),
        "unpacked": _unpacked,
        "jinja2": _template,
    }


def _all(found: Any) -> Any:
    return [found[name] for name in found.files] if hasattr(found, "files") else [0]


def fires(paths: dict[Path, str]) -> dict[Path, bool]:
    """Return of each file whether its loader ran its payload."""
    asked = [[str(path.resolve()), loader] for path, loader in paths.items()]
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
    )
    told = dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
    return {path: told[str(path.resolve())] for path in paths}


def main() -> None:
    """Load each file named on the input in a child of its own; say which left the marker."""
    asked, loaders = json.load(sys.stdin), _loaders()
    for path, loader in asked:
        with tempfile.TemporaryDirectory(prefix="purple-throwaway-") as folder:
            child = os.fork()
            if child == 0:
                os.chdir(folder)
                os.environ["HOME"] = folder
                null = os.open(os.devnull, os.O_RDWR)
                for stream in (0, 1, 2):
                    os.dup2(null, stream)
                resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
                resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
                with contextlib.suppress(BaseException), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    loaders[loader](Path(path))
                os._exit(0)
            os.waitpid(child, 0)
            for _ in range(40):  # what was started in the background has a second
                if ran := any(Path(folder).glob("it-ran*")):
                    break
                subprocess.run(["sleep", "0.025"], check=True)  # noqa: S607
        sys.stdout.write(json.dumps([path, ran]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

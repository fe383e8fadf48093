"""Whatever we accept of randomly changed files, other libraries read with the same values."""

from __future__ import annotations

import random

import pytest
import scan_fuzz
import scan_peers

pytest.importorskip("torch")
pytest.importorskip("safetensors")


def test_what_we_accept_of_changed_files_the_others_read_as_we_do(tmp_path):
    originals = scan_fuzz.originals()
    rng = random.Random(13)  # noqa: S311 (it changes files and guards nothing)
    files = {f"whole-{name}": content for name, content in originals.items()}
    for number in range(300):
        name = list(originals)[number % len(originals)]
        files[f"{number}-{name}"] = scan_fuzz.changed(name, originals[name], rng)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    kept = [tmp_path / name for name in files if scan_peers.accepted(tmp_path / name)]
    assert {f"whole-{name}" for name in originals} <= {path.name for path in kept}
    assert len(kept) >= len(originals) + 20
    assert scan_peers.differences(kept) == {}

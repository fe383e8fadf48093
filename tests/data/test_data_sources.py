"""The two sets that Purpleteam knows by name."""

from __future__ import annotations

import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from purpleteam.core.errors import DataError
from purpleteam.data.idx import IDX_FILES
from purpleteam.data.sources.digits import load_digits
from purpleteam.data.sources.mnist import (
    MNIST_DIGESTS,
    fetch_mnist,
    load_mnist,
    mnist_cache,
    verify_folder,
)


@pytest.fixture
def real_mnist() -> Path:
    folder = Path(os.environ.get("PURPLETEAM_DATA", "")) / "mnist"
    if not folder.is_dir():
        pytest.skip("needs the real MNIST files under PURPLETEAM_DATA")
    return folder


def test_the_digits_are_split_in_file_order():
    digits = load_digits()
    assert [len(digits.split(name)) for name in ("train", "validation", "test")] == [1297, 200, 300]
    assert digits.train.labels[:10].tolist() == list(range(10))
    assert digits.shape == (28, 28, 1)


def test_the_digits_are_the_same_pixels_for_everyone():
    wanted = "sha256:c897074ec995c2758e4f873b67d0075d072674fbc0c59d99d39d4d8ffe5a6e61"
    assert load_digits().digest == wanted


def test_the_digits_lie_as_mnist_lies():
    for image in load_digits().test.images[:50, :, :, 0].astype(float):
        used = [np.flatnonzero(image.any(axis=axis)) for axis in (0, 1)]
        assert max(int(at[-1] - at[0]) + 1 for at in used) == 20
        assert image.max() == 255
        assert 13.5 <= image.sum(axis=0) @ np.arange(28) / image.sum() < 14.5


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("PURPLETEAM_DATA", raising=False)


def test_without_files_or_download_the_error_says_what_to_do(nowhere):
    with pytest.raises(DataError, match="purple data fetch mnist"):
        load_mnist(download=False)


def test_a_folder_that_is_asked_for_must_hold_mnist(tmp_path, four_files):
    with pytest.raises(DataError, match="holds no MNIST"):
        load_mnist(tmp_path / "empty")
    with pytest.raises(DataError, match="not MNIST: expected sha256:ba89"):
        load_mnist(four_files)


def test_the_data_folder_may_hold_the_files_or_a_subfolder(nowhere, four_files, monkeypatch):
    four_files.rename(four_files.with_name("mnist"))
    for folder in (four_files.parent, four_files.with_name("mnist")):
        monkeypatch.setenv("PURPLETEAM_DATA", str(folder))
        with pytest.raises(DataError, match="not MNIST"):
            load_mnist(download=False)


def test_verifying_says_pass_fail_or_error_for_each_file(four_files):
    (four_files / f"{IDX_FILES[3]}.gz").unlink()
    verdicts = verify_folder(four_files)
    assert [one.verdict for one in verdicts] == ["fail", "fail", "fail", "error"]
    digests = {one.name: one.found for one in verdicts[:3]}
    assert all(one.verdict == "pass" for one in verify_folder(four_files, digests))
    assert "holds no t10k-labels" in verdicts[3].reason


@pytest.mark.mnist
def test_real_mnist_has_the_pinned_digests_and_splits(real_mnist):
    mnist = load_mnist(real_mnist.parent)
    assert [len(mnist.split(name)) for name in ("train", "validation", "test")] == [
        55_000,
        5_000,
        10_000,
    ]
    assert np.bincount(mnist.test.labels).tolist()[:3] == [980, 1135, 1032]
    assert mnist.origin["files"] == MNIST_DIGESTS


@pytest.mark.mnist
def test_mnist_is_fetched_from_a_mirror_into_the_cache(real_mnist, nowhere):
    handler = partial(QuietHandler, directory=str(real_mnist))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert fetch_mnist(mirrors=(f"{address}/nothing-here", address)) == mnist_cache()
        server.shutdown()
        thread.join()
    assert all(one.verdict == "pass" for one in verify_folder(mnist_cache()))


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""

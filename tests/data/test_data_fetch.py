"""Downloads from mirrors that lie, break off, stall or are not there."""

from __future__ import annotations

import hashlib
import socket
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
from data_mirror import Mirror

from purpleteam.core.errors import DataError
from purpleteam.data.fetch import fetch_file
from purpleteam.data.idx import open_idx, write_idx

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (300, 28, 28)).astype(np.uint8)


@pytest.fixture
def wanted(tmp_path):
    """The bytes that an honest mirror serves, and the digest of their content."""
    write_idx(tmp_path / "source.gz", PIXELS)
    return (tmp_path / "source.gz").read_bytes(), open_idx(tmp_path / "source.gz").digest


def fetch(tmp_path, digest, *mirrors, **options):
    with ExitStack() as stack:
        urls = tuple(stack.enter_context(mirror.serve()) for mirror in mirrors)
        fetch_file(urls, tmp_path / "cache" / "file.gz", digest, timeout=2, **options)
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["file.gz"]
    return tmp_path / "cache" / "file.gz"


def test_a_file_is_fetched_once_and_then_found(tmp_path, wanted):
    content, digest = wanted
    mirror = Mirror(content)
    for _ in range(2):
        assert fetch(tmp_path, digest, mirror).read_bytes() == content
    assert mirror.ranges == [None]


def test_a_lying_mirror_is_passed_over(tmp_path, wanted):
    content, digest = wanted
    write_idx(tmp_path / "lie.gz", PIXELS[::-1])
    liar, honest = Mirror((tmp_path / "lie.gz").read_bytes()), Mirror(content)
    assert open_idx(fetch(tmp_path, digest, liar, honest)).digest == digest
    assert len(liar.ranges) == 1


@pytest.mark.parametrize("bad", [Mirror(b"", status=404), Mirror(b"<html>", status=200)])
def test_a_missing_or_other_file_sends_us_to_the_next_mirror(tmp_path, wanted, bad):
    assert fetch(tmp_path, wanted[1], bad, Mirror(wanted[0])).is_file()


def test_a_transfer_that_breaks_off_is_taken_up_where_it_stopped(tmp_path, wanted):
    mirror = Mirror(wanted[0], cut=100_000)
    assert fetch(tmp_path, wanted[1], mirror).read_bytes() == wanted[0]
    assert mirror.ranges == [None, "bytes=100000-"]


def test_a_mirror_that_knows_no_ranges_is_read_from_the_start_again(tmp_path, wanted):
    mirror = Mirror(wanted[0], cut=1000)
    mirror.honours_ranges = False
    assert fetch(tmp_path, wanted[1], mirror).read_bytes() == wanted[0]
    assert mirror.ranges == [None, "bytes=1000-"]


@pytest.mark.parametrize("rubbish", [b"x" * 500, b"x" * 900_000])
def test_a_spoilt_part_of_an_earlier_run_is_thrown_away(tmp_path, wanted, rubbish):
    mirror = Mirror(wanted[0])
    with mirror.serve() as url:
        target = tmp_path / "cache" / "file.gz"
        with pytest.raises(DataError):
            fetch_file((url,), target, "sha256:0")
        mark = hashlib.sha256(url.encode()).hexdigest()[:8]
        part = target.with_name(f"file.gz.{mark}.part")
        part.write_bytes(rubbish)
        fetch_file((url,), target, wanted[1])
    assert target.read_bytes() == wanted[0]
    assert not part.exists()


def test_the_error_names_every_mirror_and_why(tmp_path, wanted):
    lost, liar = Mirror(b"", status=503), Mirror(wanted[0])
    with lost.serve() as one, liar.serve() as two, pytest.raises(DataError) as caught:
        fetch_file((one, two, "http://127.0.0.1:9/x"), tmp_path / "f.gz", "sha256:0")
    said = str(caught.value)
    assert f"{one}: answers 503" in said
    assert f"{two}: content is {wanted[1]}" in said
    assert "127.0.0.1:9/x: cannot be reached" in said
    assert not list(tmp_path.glob("f.gz*"))


@pytest.mark.parametrize("says_length", [True, False])
def test_more_than_the_cap_is_not_fetched(tmp_path, wanted, says_length):
    mirror = Mirror(wanted[0])
    mirror.says_length = says_length
    words = "at most 1000" if says_length else "sends more than 1000"
    with mirror.serve() as url, pytest.raises(DataError, match=words):
        fetch_file((url,), tmp_path / "f.gz", wanted[1], max_bytes=1000)


def test_a_mirror_that_falls_silent_is_left_after_the_timeout(tmp_path, wanted):
    with socket.create_server(("127.0.0.1", 0)) as silent, Mirror(wanted[0]).serve() as url:
        urls = (f"http://127.0.0.1:{silent.getsockname()[1]}/file.gz", url)
        fetch_file(urls, tmp_path / "f.gz", wanted[1], timeout=0.2)
    assert (tmp_path / "f.gz").is_file()


def test_progress_counts_every_byte(tmp_path, wanted):
    class Counter:
        total = done = 0

        @contextmanager
        def task(self, description, total):
            self.total = total
            yield self

        def advance(self, steps=1, **facts):
            self.done += steps

    counter = Counter()
    fetch(tmp_path, wanted[1], Mirror(wanted[0]), progress=counter)
    assert counter.done == counter.total == len(wanted[0])


@pytest.mark.parametrize("address", ["http://example.org/f", "file:///etc/passwd", "ftp://h/f"])
def test_only_https_is_fetched_even_after_a_redirect(tmp_path, wanted, address):
    mirror = Mirror(wanted[0], status=302)
    mirror.location = address
    with mirror.serve() as url, pytest.raises(DataError) as caught:
        fetch_file((address, url), tmp_path / "f.gz", wanted[1])
    said = str(caught.value)
    assert f"{address}: only https" in said
    assert said.count("only https") == 2 or "is not allowed" in said

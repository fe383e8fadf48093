"""IDX files as strangers send them: damaged, lying, swapped, or bombs."""

from __future__ import annotations

import contextlib
import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from purpleteam.core.errors import DataError
from purpleteam.data.idx import image_set, open_idx, write_idx

IMAGES = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
LABELS = np.array([0, 1, 2, 1, 0], np.uint8)


@given(
    st.sampled_from([1, 3, 4]).flatmap(
        lambda n: arrays(np.uint8, array_shapes(min_dims=n, max_dims=n, max_side=5))
    ),
    st.sampled_from(["a", "a.gz"]),
)
def test_what_is_written_is_read_again(tmp_path_factory, array, name):
    path = tmp_path_factory.mktemp("idx") / name
    write_idx(path, array)
    assert np.array_equal(open_idx(path).array, array)


def test_writing_twice_gives_the_same_bytes_and_either_form_the_same_digest(tmp_path):
    for name in ("one.gz", "two.gz", "raw"):
        write_idx(tmp_path / name, IMAGES)
    packed = (tmp_path / "one.gz").read_bytes()
    assert packed == (tmp_path / "two.gz").read_bytes()
    assert packed[3:8] == bytes(5)  # neither name nor time
    assert open_idx(tmp_path / "one.gz").digest == open_idx(tmp_path / "raw").digest


def test_compression_is_told_by_content_not_by_name(tmp_path):
    write_idx(tmp_path / "a.gz", IMAGES)
    misnamed = (tmp_path / "a.gz").rename(tmp_path / "a")
    assert np.array_equal(open_idx(misnamed).array, IMAGES)


def content(tmp_path: Path, array=IMAGES) -> bytes:
    write_idx(tmp_path / "good", array)
    return (tmp_path / "good").read_bytes()


def refusal(path: Path, content: bytes, **options) -> str:
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        open_idx(path, **options)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("packed", [False, True])
def test_a_truncated_or_oversized_file_is_a_clear_error(tmp_path, packed):
    pack = gzip.compress if packed else bytes
    good = content(tmp_path)
    assert "expected 60 bytes, found 59" in refusal(tmp_path / "a", pack(good[:-1]))
    assert "expected 60 bytes, found more" in refusal(tmp_path / "a", pack(good + b"x"))
    assert "truncated in its header" in refusal(tmp_path / "a", pack(good[:9]))


def test_a_damaged_gzip_file_is_a_clear_error(tmp_path):
    packed = bytearray(gzip.compress(content(tmp_path)))
    assert "damaged gzip" in refusal(tmp_path / "a", bytes(packed[:-9]))
    packed[-5] ^= 1
    assert "damaged gzip" in refusal(tmp_path / "a", bytes(packed))


@pytest.mark.parametrize(
    "start", [b"", b"\x89PNG", b"\0\0\x0d\x03", b"\0\0\x08\x02", b"\0\0\x08\x00", b"\1\0\x08\x01"]
)
def test_what_is_no_idx_of_bytes_is_refused(tmp_path, start):
    refusal(tmp_path / "a", start + content(tmp_path)[4:] if start else b"")


@given(st.binary(max_size=40), st.booleans())
def test_any_bytes_are_an_array_or_a_clear_error(tmp_path_factory, tail, packed):
    path = tmp_path_factory.mktemp("idx") / "a"
    content = b"\0\0\x08" + tail
    path.write_bytes(gzip.compress(content) if packed else content)
    with contextlib.suppress(DataError):
        assert open_idx(path).array.dtype == np.uint8


def test_an_empty_set_is_read_as_one(tmp_path):
    write_idx(tmp_path / "a", np.zeros((0, 28, 28), np.uint8))
    assert open_idx(tmp_path / "a").array.shape == (0, 28, 28)


def test_a_missing_file_and_a_folder_are_clear_errors(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(DataError, match="cannot be read"):
            open_idx(path)


def test_a_declared_size_over_the_cap_is_refused_before_reading(tmp_path):
    header = b"\0\0\x08\x03" + np.array([2**32 - 1] * 3, ">u4").tobytes()
    assert "at most" in refusal(tmp_path / "a", header)
    assert "at most 59" in refusal(tmp_path / "a", content(tmp_path), max_bytes=59)


def test_a_decompression_bomb_stops_at_the_size_its_header_admits(tmp_path):
    bomb = gzip.compress(content(tmp_path, LABELS) + bytes(20_000_000), compresslevel=1)
    (tmp_path / "bomb").write_bytes(bomb)
    tracemalloc.start()
    with pytest.raises(DataError, match="oversized: expected 5 bytes"):
        open_idx(tmp_path / "bomb")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_images_and_labels_become_an_image_set(tmp_path):
    write_idx(tmp_path / "i", IMAGES)
    write_idx(tmp_path / "l", LABELS)
    found = image_set(open_idx(tmp_path / "i"), open_idx(tmp_path / "l"))
    assert found.images.shape == (5, 4, 3, 1)
    assert found.labels.tolist() == LABELS.tolist()


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    write_idx(tmp_path / "i", IMAGES)
    write_idx(tmp_path / "l", LABELS)
    write_idx(tmp_path / "short", LABELS[:4])
    i, l, short = tmp_path / "i", tmp_path / "l", tmp_path / "short"  # noqa: E741
    cases = [(l, i, "swapped"), (i, i, "expected labels"), (l, l, "expected grey images")]
    for images, labels, words in [*cases, (i, short, "5 images, but .*short 4 labels")]:
        with pytest.raises(DataError, match=words):
            image_set(open_idx(images), open_idx(labels))

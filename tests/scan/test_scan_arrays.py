"""Arrays for data sets: what NumPy wrote is read number for number, and nothing is unpickled."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import scan_corpus as corpus

from purpleteam.core.errors import DataError, Refused
from purpleteam.scan.formats import read_arrays

PYTHON_2 = (  # as cPickle of Python 2 wrote CIFAR-10, where all text is bytes
    b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03U\x06labelsq\x04]q\x05("
    b"K\x06K\x09eU\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08"
    b"K\x00\x85U\x01b\x87Rq\x09(K\x01K\x02K\x03\x86cnumpy\ndtype\nq\x0aU\x02u1K\x00K\x01\x87Rq\x0b"
    b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T\x06\x00\x00\x00\x00\x01\xfe\xff"
    b"\n\x80tbU\x09filenamesq\x0c]q\x0d(U\x05a.pngU\x06bb.pngeu."
)

ARRAYS = {
    "floats": np.arange(6.0).reshape(2, 3),
    "big-endian, by column": np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)),
    "part": np.arange(24).reshape(4, 6)[::2, 1:],
    "truth": np.array([True, False]),
    "half": np.array([1.5, -2], np.float16),
    "one": np.array(3.5),
    "none": np.ones((0, 4), np.float32),
    "text": np.array(["cat", "horse"]),
}


@pytest.fixture
def written(tmp_path):
    def write(content: bytes):
        path = tmp_path / "data.pkl"
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", ARRAYS)
def test_a_pickled_array_is_read_as_it_was(written, events, name, protocol):
    path = written(pickle.dumps(ARRAYS[name], protocol=protocol))
    found = read_arrays(path)["array"]
    assert np.array_equal(found, ARRAYS[name])
    assert found.shape == ARRAYS[name].shape
    assert found.dtype == ARRAYS[name].dtype.newbyteorder("=")
    assert found.flags["C_CONTIGUOUS"]
    assert found.flags["WRITEABLE"]
    assert events == []


@pytest.mark.parametrize("protocol", range(6))
def test_dicts_and_tuples_of_arrays_and_lists_give_names(written, protocol):
    content = OrderedDict(train=(np.ones(2), [3, 4]), b=np.float32(1.5), note="by hand", no=None)
    content[b"names"] = [b"a.png", "b.png"]
    found = read_arrays(written(pickle.dumps(content, protocol=protocol)))
    assert {name: array.tolist() for name, array in found.items()} == {
        **{"train/0": [1, 1], "train/1": [3, 4], "b": 1.5, "note": "by hand"},
        "names": ["a.png", "b.png"],
    }
    assert found["b"].dtype == np.float32


@pytest.mark.parametrize("protocol", range(6))
def test_a_list_of_numbers_of_numpy_is_one_array(written, protocol):
    content = {"y": [np.int64(3), np.int64(4)], "t": [np.str_("a"), "b"]}
    found = read_arrays(written(pickle.dumps(content, protocol=protocol)))
    assert found["y"].tolist() == [3, 4]
    assert found["y"].dtype == np.int64
    assert found["t"].tolist() == ["a", "b"]


def test_a_batch_of_cifar_from_python_2_is_read(written):
    found = read_arrays(written(PYTHON_2))
    assert found["data"].tolist() == [[0, 1, 254], [255, 10, 128]]
    assert found["data"].dtype == np.uint8
    assert found["labels"].tolist() == [6, 9]
    assert found["filenames"].tolist() == ["a.png", "bb.png"]


def test_the_names_of_numpy_2_are_those_of_numpy_1(written):
    old = PYTHON_2.replace(b"numpy.core.multi", b"numpy._core.multi")
    assert read_arrays(written(old))["data"].shape == (2, 3)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_and_npy_files_are_read(tmp_path, save):
    save(tmp_path / "a.npz", **ARRAYS)
    found = read_arrays(tmp_path / "a.npz")
    assert list(found) == list(ARRAYS)
    assert all(np.array_equal(found[name], array) for name, array in ARRAYS.items())
    for name, array in ARRAYS.items():
        np.save(tmp_path / "a.npy", array)
        assert np.array_equal(read_arrays(tmp_path / "a.npy")["array"], array), name


@pytest.mark.parametrize("off", [0, 1])
@pytest.mark.parametrize("piped", [False, True])
def test_archives_of_python_before_3_11_4_are_read_where_their_sizes_agree(tmp_path, piped, off):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.arange(3.0))
    (entry,) = zipfile.ZipFile(path).infolist()
    sizes, content = (entry.file_size, entry.compress_size), bytearray(path.read_bytes())
    start = entry.header_offset
    behind = start + 30 + len(entry.filename) + 20 + entry.compress_size
    assert content[start + 30 + len(entry.filename) :][:2] == b"\1\0"  # the 64-bit sizes
    if piped:  # zeros before the data, in both places; the sizes behind them
        content[behind:behind] = struct.pack("<4sLQQ", b"PK\7\10", entry.CRC, *sizes)
        struct.pack_into("<H", content, start + 6, 8)
        struct.pack_into("<3L", content, start + 14, 0, 0, 0)
        struct.pack_into("<2Q", content, start + 34 + len(entry.filename), off, 0)
        struct.pack_into("<H", content, behind + 24 + 8, 8)
        struct.pack_into("<L", content, len(content) - 6, behind + 24)
    else:
        struct.pack_into("<2L", content, start + 18, sizes[1], sizes[0] + off)
    path.write_bytes(content)
    if off:
        with pytest.raises(Refused, match="other sizes before its data"):
            read_arrays(path)
    else:
        assert read_arrays(path)["x"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"x": np.array([{}], object)}, "array 'x' holds Python objects"),
        ({"x": {"y": np.zeros(1, [("a", "i4")])}}, "array 'x/y' has number format"),
        (np.ones(2, complex), "complex128"),
        ({"x": [[1], [2, 3]]}, "'x' is a list of parts of different lengths"),
        ({"x": [1, "a"]}, "'x' mixes text and numbers"),
        ({"x": [b"\xff\xd8"]}, "'x' holds bytes that are no text"),
        ({"x": 1 << 70}, "'x' is no list of numbers"),
        ({1: np.ones(1), "1": np.ones(1)}, "two arrays are called '1'"),
        ({"x": {1, 2}}, "EMPTY_SET|set"),
        ({}, "no array"),
    ],
)
def test_what_is_no_number_and_no_text_is_refused_by_name(written, content, reason):
    with pytest.raises(Refused, match=reason):
        read_arrays(written(pickle.dumps(content)))


def test_arrays_of_objects_are_refused_in_npy_and_npz_files(tmp_path):
    objects = np.array([{}], object)
    np.save(tmp_path / "a.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "a.npz", good=np.ones(1), bad=objects)
    with pytest.raises(Refused, match="array 'array' holds Python objects"):
        read_arrays(tmp_path / "a.npy")
    with pytest.raises(Refused, match="array 'bad' holds Python objects"):
        read_arrays(tmp_path / "a.npz")


def test_every_payload_is_refused_and_nothing_runs(written, marker, events):
    for name, payload in corpus.pickles(marker).items():
        with pytest.raises(Refused) as refusal:
            read_arrays(written(payload))
        assert "\n" not in str(refusal.value), name
    assert events == []
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "part", "instead"),
    [
        (np.ones(2), b"K\x00\x85", b"\x89\x85"),  # (False,) as a shape
        ([1, np.ones((0, 2))], b"\x80\x02", b"\x80\x03"),  # __builtin__.bytes is of Python 2
    ],
)
def test_what_numpy_or_python_refuses_is_refused(written, content, part, instead):
    whole = pickle.dumps(content, 2)
    assert read_arrays(written(whole))
    with pytest.raises(Refused):
        read_arrays(written(whole.replace(part, instead)))


def test_lists_that_hold_themselves_or_one_another_many_times_are_refused(written):
    endless: list[object] = []
    endless.append(endless)
    laughs: list[object] = [0] * 10
    for _ in range(12):
        laughs = [laughs] * 10
    for content in (endless, laughs):
        with pytest.raises(Refused):
            read_arrays(written(pickle.dumps(content)))


def test_a_header_that_claims_more_than_there_is_allocates_nothing(tmp_path):
    np.save(tmp_path / "a.npy", np.ones(3))
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole.replace(b"(3,), }         ", b"(2147483647,), }"))
    with pytest.raises(Refused, match="claims 17179869176 bytes and has 24"):
        read_arrays(tmp_path / "a.npy")


def test_a_missing_file_is_an_error_of_data(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_arrays(tmp_path / "a.npz")

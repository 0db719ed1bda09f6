"""The reader of CIFAR-10's pickles: what official files hold is read, and nothing else does anything."""

import contextlib
import os
import pickle
import re
import time

import cifar_files
import numpy as np
import pytest

from modelsoups.data.cifar import pickles


@pytest.fixture
def read(tmp_path):
    def of(content):
        (tmp_path / "data_batch_1").write_bytes(content)
        return pickles.read(tmp_path / "data_batch_1")

    return of


def test_a_batch_is_read_as_python_reads_it(read):
    pixels, labels = cifar_files.pictures(0, [3, 9, 0])
    content = cifar_files.batch(pixels, labels)
    found = read(content)
    expected = pickle.loads(content.replace(b"numpy.core", b"numpy._core"), encoding="latin1")
    assert list(found) == list(expected) == ["batch_label", "labels", "data", "filenames"]
    assert (found["labels"], found["filenames"]) == (expected["labels"], expected["filenames"])
    assert found["data"].dtype == np.uint8
    assert np.array_equal(found["data"], expected["data"])
    assert np.array_equal(found["data"].reshape(3, 3, 32, 32).transpose(0, 2, 3, 1), pixels)


class Runs:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_runs_nothing(read, tmp_path):
    target = tmp_path / "made"
    with pytest.raises(ValueError, match=r"data_batch_1 is not an official file of CIFAR-10 \(it asks for posix.mkdir"):
        read(b"\x80\x02cposix\nmkdir\nU\x05/nameq\x00\x85R.".replace(b"U\x05/nameq\x00", cifar_files.text(str(target))))
    for protocol in range(6):
        with pytest.raises(ValueError, match="is not an official file of CIFAR-10"):
            read(pickle.dumps({"data": Runs(str(target))}, protocol))
    assert not target.exists()


ARRAY = cifar_files.array(np.zeros((2, 3), np.uint8))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a pickle of protocol 2"),
        (b"(dp0\n.", "not a pickle of protocol 2"),
        (pickle.dumps({"labels": [1]}, 4), "not a pickle of protocol 2"),
        (pickle.dumps({"labels": [1]}, 2), "operation BINUNICODE, which official files lack"),
        (b"\x80\x02]q\x00.", "does not hold a dictionary"),
        (b"\x80\x02}}.", "ends with 2 objects"),
        (b"\x80\x02}(K\x01K\x02u.", "keys are not strings"),
        (b"\x80\x02}(U\x01au.", "shorter than argument 1"),
        (b"\x80\x02u.", "pop from empty list"),
        (b"\x80\x02K\x01K\x02a.", "something other than a list"),
        (b"\x80\x02h\x07.", "recalls object 7"),
        (b"\x80\x02K\x01K\x02\x87.", "damaged"),
        (b"\x80\x02K\x01)R.", "not a name"),
        (b"\x80\x02K\x01)b.", "something other than an array"),
        (cifar_files.pickled({"data": b"cnumpy\nndarray\n)R"}), "not an array"),
        (cifar_files.pickled({"data": ARRAY.replace(b"u1", b"O8")}), "not of type uint8"),
        (cifar_files.pickled({"data": ARRAY.replace(b"K\x02K\x03\x86", b"K\x02\x85")}), "two dimensions"),
        (cifar_files.pickled({"data": ARRAY.replace(b"K\x02K\x03\x86", b"K\x09K\x03\x86")}), r"shape \(9, 3\) has 6"),
        (b"\x80\x02" + b"N" * 1_000_001 + b".", "more than 1,000,000 operations"),
        (b"\x80\x02}q\x00T\xff\xff\xff\x7fabc", "expected 2147483647 bytes"),
    ],
)
def test_other_pickles_are_refused_in_a_line(read, content, reason):
    with pytest.raises(ValueError, match=reason) as error:
        read(content)
    assert "\n" not in str(error.value)
    assert re.search(r"extract cifar-10-python.tar.gz", str(error.value))


def test_objects_that_grow_exponentially_take_no_time(read):
    bomb = b"\x80\x02)q\x00" + b"h\x00h\x00\x86q\x00" * 200 + b"}(h\x00K\x01u."
    begun = time.monotonic()
    with pytest.raises(ValueError, match=r"keys are not strings|ends with"):
        read(bomb)
    assert time.monotonic() - begun < 5


def test_every_cut_of_a_batch_is_refused(read):
    content = cifar_files.batch(*cifar_files.pictures(0, [1]))
    for length in [*range(0, len(content) - 1, 97), len(content) - 1]:
        with pytest.raises(ValueError, match="not an official file"):
            read(content[:length])


def test_changed_bytes_are_read_or_refused(read):
    content = cifar_files.batch(*cifar_files.pictures(0, [1]))
    rng = np.random.default_rng(0)
    start = content.index(b"cnumpy.core")
    places = [i for i in range(len(content)) if not start + 150 < i < len(content) - 100]
    for _ in range(60):
        changed = bytearray(content)
        changed[rng.choice(places)] = rng.integers(256)
        with contextlib.suppress(ValueError):
            read(bytes(changed))


def test_large_files_are_refused_before_they_are_read(tmp_path):
    with open(tmp_path / "data_batch_1", "wb") as file:
        file.truncate(65 * 2**20)
    with pytest.raises(ValueError, match="has 65 MiB, but a batch of CIFAR-10 has 30"):
        pickles.read(tmp_path / "data_batch_1")

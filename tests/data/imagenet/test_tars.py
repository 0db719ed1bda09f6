"""Headers of tars that lie are refused in one line, at once and in little memory."""

import io
import tarfile
import tracemalloc

import pytest

from modelsoups.data.imagenet import tars, wds
from modelsoups.data.imagenet.tars import BLOCKSIZE, Member

END = bytes(2 * BLOCKSIZE)


def header(name, size=0, kind=tarfile.REGTYPE, field=None):
    info = tarfile.TarInfo(name)
    info.size, info.type = max(size, 0), kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    if size < 0 or field is not None:
        block[124:136] = field or b"\xff" + (2**88 + size).to_bytes(11, "big")  # GNU's base 256
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(block))[0]
    return bytes(block)


def padded(content):
    return content + bytes(-len(content) % BLOCKSIZE)


def record(key, value):
    body = f" {key}={value}\n".encode()
    length = next(n for n in range(len(body), len(body) + 9) if n == len(str(n)) + len(body))
    return f"{length}".encode() + body


def pax(**records):
    content = b"".join(record(key, value) for key, value in records.items())
    return header("pax", len(content), tarfile.XHDTYPE) + padded(content)


def long_name(size):
    return header("././@LongLink", size, tarfile.GNUTYPE_LONGNAME)


IMAGE = header("n01440764_0.JPEG", 3) + padded(b"abc")
LIES = {
    "minus a block": header("n01440764_1.JPEG", -512) + END,
    "minus one": header("n01440764_1.JPEG", -1) + END,
    "minus a tebibyte": header("n01440764_1.JPEG", -(2**40)) + END,
    "more than a file can have": header("n01440764_1.JPEG", field=b"\x80" + (2**80).to_bytes(11, "big")) + END,
    "a negative folder": header("n01440764/", -512, tarfile.DIRTYPE) + END,
    "a negative long name": header("././@LongLink", -512, tarfile.GNUTYPE_LONGNAME) + END,
    "a long name of 2 GB": long_name(2**31) + END,
    "a PAX header of 2 GB": header("pax", 2**31, tarfile.XHDTYPE) + END,
    "a negative size by PAX": pax(size=-512) + IMAGE + END,
    "a chain of PAX headers": pax(comment="x") * 5000 + IMAGE + END,
    "a chain of long names": (long_name(4) + padded(b"a/b\0")) * 5000 + IMAGE + END,
    "many large PAX headers": pax(comment="x" * 60_000) * 40 + IMAGE + END,
    "a sparse file by PAX": pax(**{"GNU.sparse.major": 1, "GNU.sparse.minor": 0})
    + header("x", 512)
    + padded(b"9" * 512),
    "an old sparse file": header("x", 3, tarfile.GNUTYPE_SPARSE)[:480] + b"\x01" * 32,
}


@pytest.mark.parametrize("lie", LIES)
def test_headers_that_lie_are_refused_in_little_memory(tmp_path, lie):
    path = tmp_path / "a.tar"
    path.write_bytes(IMAGE + LIES[lie])
    with open(path, "r+b") as file:  # sparse: a size may be within the file
        file.truncate(len(IMAGE + LIES[lie]) if "sparse" in lie else 2**33)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"a\.tar.*(truncated|link)") as error:
        list(tars.members(path))
    assert "\n" not in str(error.value)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_long_names_and_pax_headers_of_real_archives_are_read(tmp_path):
    path, name = tmp_path / "a.tar", "d/" * 150 + "n01440764_1.JPEG"
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(path, "w", format=form) as archive:
            for member in (name, "n01440764_2.JPEG"):
                info = tarfile.TarInfo(member)
                info.size, info.mtime = 3, 1.5
                archive.addfile(info, io.BytesIO(b"abc"))
        found = list(tars.members(path))
        assert [member.name for member in found] == [name, "n01440764_2.JPEG"]
        assert all(path.read_bytes()[m.offset : m.offset + m.size] == b"abc" for m in found)


@pytest.mark.parametrize("twice", ["s0.jpg", "s0.png", "s0.cls"])
def test_an_image_that_is_twice_in_a_shard_is_refused(tmp_path, twice):
    path = tmp_path / "a.tar"
    names = ["s0.jpg", "s0.cls"]
    path.write_bytes(b"".join(header(name, 1) + padded(b"0") for name in [*names, twice]) + END)
    with pytest.raises(ValueError, match=rf"a\.tar: s0 occurs twice, also as {twice}; download it again"):
        list(wds.labelled(path))
    path.write_bytes(b"".join(header(name, 1) + padded(b"0") for name in names) + END)
    assert list(wds.labelled(path)) == [(Member("s0.jpg", 512, 1), 0)]

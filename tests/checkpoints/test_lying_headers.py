"""Headers of zip archives, safetensors files and indexes that lie: refused in one line, in little memory."""

import io
import json
import struct
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from modelsoups.checkpoints import formats, pytorch
from modelsoups.checkpoints.formats import open_checkpoint
from modelsoups.disk import opening

STATE = {"w": torch.arange(6.0)}


def refused(path, says):
    with pytest.raises(ValueError, match=says) as error:
        dict(open_checkpoint(path))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_archive_that_unpacks_to_more_than_its_size_is_refused(tmp_path, monkeypatch):
    """A pickle of zeros, compressed a thousand times."""
    monkeypatch.setattr(pytorch, "CODE", 2**20)
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(2**22))
        archive.writestr("a/version", "3")
    refused(path, r"a\.pt unpacks to 4,194,305 bytes, but has \d")


def test_entries_that_share_their_bytes_are_refused(tmp_path, monkeypatch):
    """Sixty entries of the directory stand for the bytes of one."""
    monkeypatch.setattr(pytorch, "CODE", 0)
    path, buffer = tmp_path / "a.pt", io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/data.pkl", bytes(10_000))
    content = buffer.getvalue()
    end = content.rindex(b"PK\5\6")
    size, start = struct.unpack("<II", content[end + 12 : end + 20])
    directory = content[start : start + size] * 60
    tail = content[end : end + 8] + struct.pack("<HHIIH", 60, 60, len(directory), start, 0)
    path.write_bytes(content[:start] + directory + tail)
    refused(path, "unpacks to 600,000 bytes, but has .* although torch.save does not compress")


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**25 + 1, 2**24, 0])
def test_a_safetensors_file_whose_header_has_another_length_is_refused(tmp_path, length):
    path = tmp_path / "a.safetensors"
    save_file(STATE, path)
    path.write_bytes(length.to_bytes(8, "little") + path.read_bytes()[8:])
    with open(path, "r+b") as file:
        file.truncate(2**35)  # sparse: the header's length is within the file
    refused(path, "has a header of .* bytes, but at most|not a safetensors file")


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2**62], "data_offsets": [0, 24]},
        {"dtype": "F32", "shape": [2**32, 2**32], "data_offsets": [0, 0]},
        {"dtype": "F32", "shape": [-6], "data_offsets": [0, 24]},
        {"dtype": "F32", "shape": [6], "data_offsets": [24, 0]},
        {"dtype": "F32", "shape": [6], "data_offsets": [2**40, 2**40 + 24]},
        {"dtype": "F32", "shape": 6, "data_offsets": [0, 24]},
        {"dtype": "F32", "shape": [6]},
        [],
    ],
)
def test_an_entry_of_a_safetensors_header_that_lies_is_refused(tmp_path, entry):
    path = tmp_path / "a.safetensors"
    header = json.dumps({"w": entry}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(24))
    refused(path, "not a safetensors file")


def test_large_headers_and_indexes_are_refused_and_whole_ones_read(tmp_path, monkeypatch):
    path, index = tmp_path / "a.safetensors", tmp_path / "model.safetensors.index.json"
    save_file(STATE, path)
    index.write_text(json.dumps({"weight_map": {"w": "a.safetensors"}}))
    assert list(open_checkpoint(path)) == list(open_checkpoint(index)) == ["w"]
    with open(index, "r+b") as file:
        file.truncate(2**40)
    refused(index, "is not an index of shards")
    with pytest.raises(ValueError, match="has 1,099,511,627,776 bytes, but is read only up to"):
        opening.text_of(index)
    monkeypatch.setattr(formats, "MOST_HEADER", 16)
    refused(path, r"a\.safetensors has a header of \d+ bytes, but at most 16 are read")

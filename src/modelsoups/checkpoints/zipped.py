"""Load zipped PyTorch files that may be larger than the machine's memory."""

import sys
from pathlib import Path

import torch
from torch import _weights_only_unpickler

from modelsoups.checkpoints.mapped import MappedFile, tensor_of
from modelsoups.disk.opening import utf8_name


def load_zipped(path: Path) -> object:
    """Return what torch.load returns for a zipped file, with tensors in a memory map of the file.

    torch.load maps it copy-on-write, which the system may count as used memory and refuse. Then
    torch's loader gets a read-only map instead.
    """
    try:
        with utf8_name(path) as name:
            return torch.load(name, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "unable to mmap" not in str(error):
            raise
    whole = tensor_of(MappedFile(path).bytes, torch.uint8).untyped_storage()
    with utf8_name(path) as name, torch.serialization._open_zipfile_reader(str(name)) as archive:
        if archive.has_record("byteorder") and archive.get_record("byteorder").decode() != sys.byteorder:
            raise ValueError(
                f"{path} has another machine's byte order, and there is too little memory to convert it; free some"
            )
        more = {"overall_storage": whole, "encoding": "utf-8", "weights_only": True}
        found: object = torch.serialization._load(archive, "cpu", _weights_only_unpickler, **more)
    return found

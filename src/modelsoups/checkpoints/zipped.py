"""torch.load of files larger than the machine's memory."""

import sys
from pathlib import Path

import torch
from torch import _weights_only_unpickler

from modelsoups.checkpoints.mapped import MappedFile, tensor_of
from modelsoups.disk.opening import utf8_name


def load_zipped(path: Path) -> object:
    """What torch.load returns for a zipped file; its tensors lie in a memory map.

    torch maps the file so that it could write to a copy, which counts as memory. Where the system
    refuses that, torch's own reader is given our read-only map.
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
            raise ValueError(f"{path} has the byte order of another machine; its numbers do not fit into this memory")
        more = {"overall_storage": whole, "encoding": "utf-8", "weights_only": True}
        found: object = torch.serialization._load(archive, "cpu", _weights_only_unpickler, **more)
    return found

"""Reads W&B's own files: run-<id>.wandb, a log of protobuf records in LevelDB's format.

Blocks of 32 KiB, the first begun by a header of 7 bytes. A record is one or more parts, each with a header of 7 bytes
(CRC-32 of type and content, length, type: 1 whole, 2 first, 3 middle, 4 last); a block's last bytes are padding where
no header fits. A file that was cut off reads up to its last whole record.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, HEADER = 32 * 1024, 7
WHOLE, FIRST, _MIDDLE, LAST = 1, 2, 3, 4


def contents(path: Path) -> Iterator[bytes]:
    """The whole records of a file, in order."""
    data = path.read_bytes()
    place, parts = HEADER, b""
    while place + HEADER <= len(data):
        if BLOCK - place % BLOCK < HEADER:
            place += BLOCK - place % BLOCK
            continue
        checksum, length, kind = struct.unpack_from("<IHB", data, place)
        part = data[place + HEADER : place + HEADER + length]
        if len(part) < length or zlib.crc32(bytes([kind]) + part) != checksum:
            return
        parts = part if kind in (WHOLE, FIRST) else parts + part
        if kind in (WHOLE, LAST):
            yield parts
        place += HEADER + length


def records(path: Path) -> Iterator[Any]:
    """The records as protobuf messages (wandb.proto)."""
    from wandb.proto import wandb_internal_pb2

    proto: Any = wandb_internal_pb2  # its types are made when it is imported

    for content in contents(path):
        record = proto.Record()
        record.ParseFromString(content)
        yield record


def values(items: Any) -> dict[str, Any]:
    """The items of a history, summary or configuration record; nested keys joined with dots."""
    found = {}
    for item in items:
        name = item.key or ".".join(item.nested_key)
        found[name] = json.loads(item.value_json)
    return found


def history(path: Path) -> list[dict[str, Any]]:
    """The logged rows, in order, each with its `_step`."""
    return [values(r.history.item) for r in records(path) if r.WhichOneof("record_type") == "history"]


def segments(folder: Path, run_id: str) -> list[Path]:
    """The files of a run, oldest first; `folder` is where W&B keeps its runs."""
    return sorted(folder.glob(f"wandb/*run-*-{run_id}/run-{run_id}.wandb"))


def last_step(folder: Path, run_id: str) -> int:
    """The last step that is on disk in any file of the run, or -1."""
    rows = [row for path in segments(folder, run_id) for row in history(path)]
    return max((int(row["_step"]) for row in rows), default=-1)

"""Reads the rows of Hugging Face's parquet and arrow files with pyarrow; `datasets` is not needed.

The files' metadata names the classes: an integer of a ClassLabel column stands for one of them.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from modelsoups.data import footers, walk
from modelsoups.data.text.tables import Row, Table

SUFFIXES = (".parquet", ".arrow")


def read(path: Path) -> Table:
    """Return a parquet or arrow file's table; ValueError if pyarrow is missing or it is damaged."""
    with _pyarrow(path) as pa:
        buffer = pa.BufferReader(walk.content(path, "a file of texts"))
        table = _parquet(pa, path, buffer) if path.suffix == ".parquet" else _arrow(pa, buffer)
        table.validate(full=True)  # damaged offsets would crash the process
        names = _class_names(table.schema.metadata or {})
        return Table(path, table.column_names, list(_rows(path, table)), names)


def _parquet(pa: Any, path: Path, buffer: Any) -> Any:
    """Return a parquet file's table; ValueError if it unpacks to more than footers.MOST_BYTES."""
    file = pa.parquet.ParquetFile(buffer)
    if (size := footers.check_sizes(path, file.metadata)) > footers.MOST_BYTES:
        most = f"more than {footers.MOST_BYTES >> 20} MiB; split it into several files"
        raise ValueError(f"{path} unpacks to {size:,} bytes, {most}")
    return file.read()


def _arrow(pa: Any, buffer: Any) -> Any:
    """Return an arrow file's table: a stream, as `datasets` writes, or an arrow file proper."""
    try:
        return pa.ipc.open_stream(buffer).read_all()
    except pa.ArrowInvalid:
        buffer.seek(0)
        return pa.ipc.open_file(buffer).read_all()


def _rows(path: Path, table: Any) -> Iterator[Row]:
    first = 1
    for batch in table.to_batches():
        for number, values in enumerate(batch.to_pylist(), first):
            yield Row(f"{path} row {number}", values)
        first += len(batch)


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, Sequence[str]]:
    """Return the class names of each ClassLabel column, from the metadata of `datasets`."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        labels = {column: about for column, about in features.items() if about.get("_type") == "ClassLabel"}
        return {column: [str(name) for name in about["names"]] for column, about in labels.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


@contextlib.contextmanager
def _pyarrow(path: Path) -> Iterator[Any]:
    """Yield pyarrow; its errors in the with block become ValueErrors that name the file."""
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError(f"{path} needs pyarrow: pip install 'modelsoups[parquet]'") from error
    try:
        yield pa
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(
            f"{path} is truncated or not {path.suffix.lstrip('.')} ({reason}); download it again"
        ) from error

"""Checks the sizes in the footer of a parquet file, whose small pages may unpack to any size."""

from pathlib import Path
from typing import Any

MOST_BYTES = 2**29  # of a row group when unpacked; reading takes about as much memory


def check_sizes(path: Path, footer: Any) -> int:
    """Return to how many bytes a parquet file unpacks; ValueError beyond MOST_BYTES in one row group.

    The metadata of single columns is not asked for: pyarrow ends the process if it is damaged.
    """
    total = 0
    for group in range(footer.num_row_groups):
        size = int(footer.row_group(group).total_byte_size)
        if not 0 <= size <= MOST_BYTES:
            way_out = "write smaller row groups, or download the file again"
            raise ValueError(f"{path}: row group {group} unpacks to {size:,} bytes, not 0 to {MOST_BYTES:,}; {way_out}")
        total += size
    return total

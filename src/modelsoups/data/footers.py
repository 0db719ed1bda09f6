"""Checks the sizes in the footer of a parquet file, whose small pages may unpack to any size."""

from pathlib import Path
from typing import Any

MOST_BYTES = 2**29  # of a column in a row group when unpacked; reading takes about as much memory


def check_sizes(path: Path, footer: Any) -> int:
    """Return to how many bytes a parquet file unpacks; ValueError beyond MOST_BYTES in one column."""
    total = 0
    for group in range(footer.num_row_groups):
        about = footer.row_group(group)
        for column in range(about.num_columns):
            size = int(about.column(column).total_uncompressed_size)
            if not 0 <= size <= MOST_BYTES:
                way_out = "write smaller row groups, or download the file again"
                most = f"more than {MOST_BYTES >> 20} MiB: {way_out}"
                raise ValueError(f"{path}: a column of row group {group} unpacks to {size:,} bytes, {most}")
            total += size
    return total

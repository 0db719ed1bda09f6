"""Parquet files of another schema, or that unpack to too much, are refused in one line."""

import pytest

from modelsoups.data import footers
from modelsoups.data.imagenet import parquet

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
IMAGE = {"bytes": b"x", "path": "n01440764_1.JPEG"}


def written(folder, rows, schema=None):
    path = folder / "a.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema), path, compression="zstd")
    return path


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"image": IMAGE, "label": "7"}, "n01440764_1.JPEG has label '7', not a class number"),
        ({"image": IMAGE, "label": float("nan")}, "has label 'nan', not a class number"),
        ({"image": IMAGE, "label": 1.0}, "has label '1.0', not a class number"),
        ({"image": IMAGE, "label": [7]}, r"has label '\[7\]', not a class number"),
        ({"image": IMAGE, "label": True}, "has label 'True', not a class number"),
        ({"image": IMAGE, "label": -1}, "has label -1; move the test split elsewhere"),
        ({"image": {**IMAGE, "path": 7}, "label": 7}, "a row has no file name"),
        ({"image": {**IMAGE, "bytes": "text"}, "label": 7}, "a row has no image bytes"),
        ({"image": {**IMAGE, "bytes": [1, 2]}, "label": 7}, "a row has no image bytes"),
        ({"image": b"x", "label": 7}, "a row has no image bytes"),
        ({"picture": IMAGE, "label": 7}, "has columns label, picture; expected image and label"),
    ],
)
def test_another_schema_is_refused_with_the_files_name(tmp_path, row, says):
    path = written(tmp_path, [row])
    with pytest.raises(ValueError, match=says) as error:
        list(parquet.rows(path))
    assert str(error.value).startswith(str(path))


def test_a_small_file_that_unpacks_to_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(footers, "MOST_BYTES", 2**20)
    path = written(tmp_path, [{"image": {**IMAGE, "bytes": bytes(2**21)}, "label": 7}])
    assert path.stat().st_size < 10_000
    with pytest.raises(ValueError, match=r"row group 0 unpacks to 2,\d+,\d+ bytes, not 0 to 1,048,576"):
        list(parquet.rows(path))
    monkeypatch.undo()
    assert [(name, len(data), label) for name, data, label in parquet.rows(path)] == [(IMAGE["path"], 2**21, 7)]


def test_a_page_that_claims_two_gigabytes_is_refused_in_little_memory(tmp_path):
    path = written(tmp_path, [{"image": IMAGE, "label": 7}])
    data, claimed = path.read_bytes(), b"\xf4\xff\xff\xff\x0f"  # 2,147,483,642 as a zigzag varint of Thrift
    assert data[4:9:2] == b"\x15\x15\x15"  # the first page's type, and its sizes unpacked and packed
    path.write_bytes(data[:9] + claimed + data[10:])
    most = pa.default_memory_pool().max_memory()
    with pytest.raises(ValueError, match=r"a\.parquet is truncated or not a parquet file .*2147483642"):
        list(parquet.rows(path))
    assert pa.default_memory_pool().max_memory() < most + 2**28

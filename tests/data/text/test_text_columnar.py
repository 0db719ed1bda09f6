"""Parquet and arrow files, as Hugging Face and `datasets.save_to_disk` write them."""

import builtins
import json
import struct

import pytest

from modelsoups.data.text import columnar, examples, library, sources

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def table(rows, names=None, kind=None):
    columns = {
        "sentence": [text for text, _ in rows],
        "label": [label for _, label in rows],
        "idx": list(range(len(rows))),
    }
    made = pa.table({**columns, "label": pa.array(columns["label"], kind or pa.int64())})
    features = {"sentence": {"dtype": "string", "_type": "Value"}, "label": {"names": names, "_type": "ClassLabel"}}
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})} if names else {})


def read(data, name="train"):
    return examples.read(sources.find(data, name), data.text)


def write_stream(path, made):
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, made.schema) as writer:
        writer.write_table(made)


def save_to_disk(folder, parts):
    """Write what datasets.save_to_disk writes: streams of arrow, and JSON files."""
    folder.mkdir()
    names = [f"data-{i:05d}-of-{len(parts):05d}.arrow" for i in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        write_stream(folder / name, part)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text("{}")


def form(kind, folder, rows):
    """Write train in one form, in the place of train.tsv."""
    sets, tsv, jsonl = rows
    if kind == "tsv":
        return
    (folder / "train.tsv").unlink()
    train = sets["train"]
    halves = [table(train[:3], ["sad", "happy"]), table(train[3:], ["sad", "happy"])]
    if kind == "crlf":
        (folder / "train.tsv").write_bytes(b"\xef\xbb\xbf" + tsv(train).replace("\n", "\r\n").encode())
    elif kind == "jsonl":
        (folder / "train.jsonl").write_text(jsonl(train))
    elif kind == "csv":
        (folder / "train.csv").write_text(tsv(train).replace("\t", ","))
    elif kind == "parquet":
        for i, half in enumerate(halves):
            pq.write_table(half, folder / f"train-{i:05d}-of-00002.parquet")
    elif kind == "converted":  # as in the branch refs/convert/parquet
        (folder / "train").mkdir()
        pq.write_table(table(train), folder / "train/0000.parquet")
    elif kind == "arrow":
        save_to_disk(folder / "train", halves)


@pytest.mark.parametrize("kind", ["crlf", "jsonl", "csv", "parquet", "converted", "arrow"])
def test_every_form_gives_the_same_bytes(data, folder, rows, kind, tmp_path):
    given = data()
    sets = library.names(given)
    wanted = {name: library.inputs(given, "paper", name) for name in sets}
    library.make(given, "paper", sets, 1)
    made = {name: (tmp_path / f"data/moods/{name}/examples.jsonl").read_bytes() for name in sets}
    hashes = {name: library.opened(tmp_path / f"data/moods/{name}").sha256 for name in sets}
    form(kind, folder, rows)
    assert {name: library.inputs(given, "paper", name) for name in sets} == wanted
    library.make(given, "paper", sets, 1)
    assert {name: (tmp_path / f"data/moods/{name}/examples.jsonl").read_bytes() for name in sets} == made
    assert {name: library.opened(tmp_path / f"data/moods/{name}").sha256 for name in sets} == hashes


def test_names_of_classes_in_the_file_decide_what_a_number_means(data, folder):
    (folder / "train.tsv").unlink()
    given = data("data.text.labels={happy: happy, sad: sad}")
    pq.write_table(table([("one", 0), ("two", 1)], ["happy", "sad"]), folder / "train.parquet")
    assert [example.label for example in read(given)] == [0, 1]  # although "0" is sad by its number
    pq.write_table(table([("one", 0), ("two", 1)]), folder / "train.parquet")
    assert [example.label for example in read(given)] == [1, 0]
    pq.write_table(table([("one", 0.0), ("two", 1.0)], kind=pa.float64()), folder / "train.parquet")
    assert [example.label for example in read(given)] == [1, 0]


@pytest.mark.parametrize(
    ("rows", "names", "said"),
    [
        ([("one", 1), ("two", -1)], ["sad", "happy"], r"row 2: label is -1; GLUE's test sets have no labels"),
        ([("one", 1), ("two", None)], None, r"row 2: label is missing"),
        ([("one", 2)], ["sad", "happy"], "row 1: label is 2, but the file names only 2 classes"),
        ([("one", 2)], ["sad", "happy", "calm"], r"row 1: label is 2 \(calm\); expected one of 1, 0"),
        ([(None, 1)], None, "row 1: sentence is empty"),
    ],
)
def test_a_wrong_row_is_named(data, folder, rows, names, said):
    pq.write_table(table(rows, names), folder / "mine.parquet")
    with pytest.raises(ValueError, match=rf"mine\.parquet {said}"):
        read(data("data.text.files.train=mine.parquet"))


def test_damaged_files_are_named(data, folder):
    (folder / "mine.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match=r"mine\.parquet is truncated or not parquet .*download it again"):
        read(data("data.text.files.train=mine.parquet"))
    (folder / "mine.arrow").write_bytes(b"ARROW1 and no more")
    with pytest.raises(ValueError, match=r"mine\.arrow is truncated or not arrow"):
        read(data("data.text.files.train=mine.arrow"))


def test_damaged_offsets_are_an_error_and_no_crash(data, folder):
    write_stream(folder / "mine.arrow", pa.table({"sentence": ["aaaa", "bbbb"], "label": ["1", "0"]}))
    content = (folder / "mine.arrow").read_bytes()
    assert struct.pack("<3i", 0, 4, 8) in content
    damaged = content.replace(struct.pack("<3i", 0, 4, 8), struct.pack("<3i", 0, 2**30, 8))
    (folder / "mine.arrow").write_bytes(damaged)
    with pytest.raises(ValueError, match=r"mine\.arrow is truncated or not arrow"):
        read(data("data.text.files.train=mine.arrow"))


def test_folders_of_save_to_disk_that_are_not_whole(data, folder):
    (folder / "train.tsv").unlink()
    save_to_disk(folder / "train", [table([("one", 1)]), table([("two", 0)])])
    (folder / "train/data-00001-of-00002.arrow").rename(folder / "kept")
    with pytest.raises(ValueError, match=r"data-00001-of-00002\.arrow is missing, although .*state\.json lists it"):
        read(data())
    (folder / "kept").rename(folder / "train/data-00001-of-00002.arrow")
    (folder / "train/0.parquet").touch()
    with pytest.raises(ValueError, match=r"contains \.arrow and \.parquet files"):
        read(data())
    (folder / "train/0.parquet").unlink()
    (folder / "train/state.json").write_text('{"_indices_data_files": [{"filename": "i.arrow"}]}')
    with pytest.raises(ValueError, match="is a selection of rows of another"):
        read(data())


def test_without_pyarrow_the_extra_is_named(folder, monkeypatch):
    real = builtins.__import__

    def absent(name, *rest):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ValueError, match=r"a\.parquet needs pyarrow: pip install 'modelsoups\[parquet\]'"):
        columnar.read(folder / "a.parquet")

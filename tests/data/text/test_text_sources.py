"""Which files are a set: by name, in parts, in folders, and where two forms may be meant."""

import shutil

import pytest

from modelsoups.data.text import sources


def found(data, name="train"):
    return [path.name for path in sources.find(data, name).files]


@pytest.mark.parametrize("alias", ["dev", "valid", "val"])
def test_validation_is_also_found_by_its_other_names(data, folder, alias):
    (folder / "test.tsv").rename(folder / f"{alias}.tsv")
    assert found(data("data.test=validation"), "validation") == [f"{alias}.tsv"]
    (folder / "dev_cleaned.tsv").write_text("not a set")
    (folder / "._dev.tsv").write_text("left by a Mac")
    (folder / "validation.tsv").write_text("")
    assert found(data(), "validation") == ["validation.tsv"]


@pytest.mark.parametrize("place", ["", "data", "MRPC", "MRPC/data"])
def test_parts_of_hugging_face(data, folder, place):
    (folder / "train.tsv").unlink()
    below = folder / place
    below.mkdir(parents=True, exist_ok=True)
    names = [f"train-{i:05d}-of-00002-0123456789abcdef.parquet" for i in range(2)]
    for name in [*names, "train-extra-00000-of-00001.parquet", "test-00000-of-00001.parquet"]:
        (below / name).touch()
    assert found(data("data.text.folders=[MRPC,mrpc]")) == names
    (below / names[0]).unlink()
    with pytest.raises(ValueError, match="part 00000 of 00002 is missing beside train-00001-of-00002"):
        found(data("data.text.folders=[MRPC,mrpc]"))


def test_parts_of_two_downloads_are_not_mixed(data, folder):
    (folder / "train.tsv").unlink()
    for name in ("train-00000-of-00001.parquet", "train-00000-of-00002.parquet", "train-00001-of-00002.parquet"):
        (folder / name).touch()
    with pytest.raises(ValueError, match="are not parts of one set"):
        found(data())
    (folder / "train-00000-of-00001.parquet").unlink()
    (folder / "train-00000-of-00002-0123456789abcdef.parquet").touch()
    with pytest.raises(ValueError, match="3 files for 2 parts"):
        found(data())


def test_two_forms_of_one_set_are_refused_until_one_is_named(data, folder):
    (folder / "train.parquet").touch()
    with pytest.raises(ValueError, match=r"train\.parquet and .*train\.tsv may both be the set train; choose one with"):
        found(data())
    assert found(data("data.text.files.train=train.tsv")) == ["train.tsv"]
    (folder / "dev.tsv").touch()
    (folder / "val.tsv").touch()
    with pytest.raises(ValueError, match=r"dev\.tsv and .*val\.tsv may both be the set validation"):
        found(data(), "validation")


def test_two_folders_of_one_data_set_are_refused(data, folder):
    for name in ("SST-2", "sst2"):
        (folder / name).mkdir()
    with pytest.raises(ValueError, match=r"SST-2 and .*sst2 may both be the data set; set data\.text\.folders"):
        found(data("data.text.folders=[SST-2,sst2]"))


def test_files_that_the_configuration_names(data, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.move(folder / "train.tsv", tmp_path / "t.txt")
    assert found(data("data.text.files.train=../t.txt")) == ["t.txt"]
    assert found(data("data.text.files.train='~/t.txt'")) == ["t.txt"]
    for name in ("a-1.parquet", "a-0.parquet"):
        (tmp_path / name).touch()
    assert found(data("data.text.files.train='../a-*.parquet'")) == ["a-0.parquet", "a-1.parquet"]
    assert found(data(f"data.text.files.train='{tmp_path}/a-?.parquet'")) == ["a-0.parquet", "a-1.parquet"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["data.text.files.train=no.tsv"],
            r"texts/no\.tsv does not exist; .* contains holdout\.tsv, test\.tsv, train\.tsv",
        ),
        (["data.text.files.train='*.parquet'"], r"texts/\*\.parquet does not exist"),
        (["data.text.files.train='*.tsv'"], r"only \.parquet and \.arrow files can be parts"),
        (["data.text.files.train=a.doc"], r"unknown kind of file; expected one of \.tsv"),
        (["data.text.files.train=empty"], r"contains no \.parquet or \.arrow files, but nothing"),
        (["data.root=null"], r"data\.root is null; set it to the folder that contains train\.tsv"),
        (["data.root=null", "data.text.folders=[MRPC]"], r"contains MRPC/ with train\.tsv"),
        (["data.root=nowhere"], r"data\.root=nowhere is not a folder"),
    ],
)
def test_what_is_wrong_with_the_files_is_said(data, folder, overrides, said):
    (folder / "a.doc").touch()
    (folder / "empty").mkdir()
    (folder / "a.doc").touch()
    if "contains holdout" in said:
        (folder / "a.doc").unlink()
        (folder / "empty").rmdir()
    with pytest.raises(ValueError, match=said):
        found(data(*overrides))


def test_a_missing_set_names_what_is_there(data, folder):
    with pytest.raises(ValueError, match=r"no rain\.tsv, .*; it contains holdout\.tsv, test\.tsv, train\.tsv: put it"):
        found(data(), "rain")

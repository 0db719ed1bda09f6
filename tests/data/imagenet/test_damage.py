"""Bad input to prepare: one line that names the thing and the way out, and nothing half-written taken for whole."""

import errno
import fcntl
import io
import os
import shutil
import tarfile

import numpy as np
import pytest
from layouts import SHIFTS, originals, picture, put, shift_sets, tar_bytes
from test_imagenet_prepare import config

from modelsoups.data.imagenet import counts, library, parquet, planning, projections, sources, tars, trees, writing
from modelsoups.data.imagenet.listing import Found, Listing, key_of
from modelsoups.data.storing import Storing, stored
from modelsoups.disk import storage
from modelsoups.experiment.experiment import Experiment
from modelsoups.stages import prepare


def plans(cfg):
    """Everything that prepare does before it writes."""
    return planning.listings(cfg.data, library.find_sources(cfg.data, library.names(cfg.data)), 1)


def refused(root, message, *more):
    with pytest.raises(ValueError, match=message) as error:
        plans(config(root, *more))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_wrong_root_says_what_was_looked_for(tmp_path):
    refused(tmp_path / "no", r"data\.root=.*/no does not exist")
    refused(tmp_path, r"has no ImageNet data set: .*ILSVRC2012_img_train\.tar or imagenet1k-train-\*\.tar or")
    cfg = config(tmp_path)
    cfg.data.root = None
    with pytest.raises(ValueError, match=r"data\.root is not set"):
        plans(cfg)
    originals(tmp_path, "folder")
    refused(tmp_path, r"data\.sources\.v2=/nowhere does not exist", "data.sources.v2=/nowhere")
    refused(
        tmp_path,
        r"data\.sources\.val: .*objectnet-1.0 has no",
        f"data.sources.val={shift_sets(tmp_path)}/objectnet-1.0",
    )


def test_an_unknown_set_is_named_with_those_there_are(tmp_path):
    with pytest.raises(ValueError, match="unknown data set vtab; choose from train, holdout, val, v2"):
        prepare.run(Experiment(config(tmp_path, "data.extra=[vtab]")))


def test_validation_images_without_labels(tmp_path):
    put(tmp_path / "val" / "kitten.JPEG", picture("k"))
    refused(tmp_path, r"val: kitten\.JPEG has no label: it is not named ILSVRC2012_val_XXXXXXXX")


def test_an_image_in_the_folder_of_another_class(tmp_path):
    originals(tmp_path, "folder")
    file = tmp_path / "train" / "n01443537" / "n01443537_1003.JPEG"
    shutil.copy(file, tmp_path / "train" / "n01498041")
    refused(tmp_path, r"n01443537_1003\.JPEG is of class n01443537, but in .* n01498041; move it")
    put(tmp_path / "b" / "val" / "n01440764" / "ILSVRC2012_val_00000001.JPEG", picture("k"))
    refused(tmp_path / "b", "val_00000001.JPEG is of class n01751748, but in the folder or tar n01440764")


def test_folders_that_do_not_belong(tmp_path):
    originals(tmp_path, "folder")
    (tmp_path / "train" / "n00000001").mkdir()
    refused(tmp_path, r"n00000001 is not an ImageNet-1k class")


def test_a_wrong_or_missing_label_of_a_shard(tmp_path):
    image = picture("n01440764_1")
    for files, message in [
        ({"n01440764_1.jpg": image, "n01440764_1.cls": b"7"}, "has label 7, but class n01440764 has label 0"),
        ({"n01440764_1.jpg": image, "n01440764_1.cls": b"tench"}, "contains b'tench', not a class number"),
        ({"n01440764_1.jpg": image}, r"n01440764_1 has an image but no label"),
        ({"n01440764_1.cls": b"0"}, "n01440764_1 has a label but no image"),
    ]:
        put(tmp_path / "imagenet1k-train-0000.tar", tar_bytes(files))
        refused(tmp_path, message)


def test_the_same_image_in_two_shards(tmp_path):
    originals(tmp_path, "webdataset")
    shutil.copy(tmp_path / "imagenet1k-train-0001.tar", tmp_path / "imagenet1k-train-0002.tar")
    refused(tmp_path, r"12 images occur twice, first n01440764_10.*train-0001\.tar .*train-0002\.tar .*remove one")


def test_a_nested_copy_of_a_test_set(tmp_path):
    shift_sets(tmp_path)
    shutil.copytree(tmp_path / "sketch", tmp_path / "copy")
    shutil.move(tmp_path / "copy", tmp_path / "sketch" / "sketch")
    refused(tmp_path, r"class folders are also in .*sketch; move one of the two elsewhere")


def test_a_folder_that_is_not_of_the_set(tmp_path):
    shift_sets(tmp_path)
    put(tmp_path / "imagenet-r" / "n01440764" / "art_0.jpg", picture("x"))
    refused(tmp_path, r"n01440764 is not a class folder of ImageNet-R; expected 200 folders, n01443537 to")
    shutil.rmtree(tmp_path / "imagenet-r")
    put(tmp_path / "imagenetv2-matched-frequency-format-val" / "1000" / "a.jpeg", picture("x"))
    refused(tmp_path, r"1000 is not a class folder of ImageNet-V2; expected 1,000 folders, 0 to 999")


@pytest.mark.parametrize("form", ["tar", "parquet", "webdataset"])
def test_a_truncated_archive_is_named_wherever_it_is_cut(tmp_path, form):
    originals(tmp_path, form)
    name = {"tar": "ILSVRC2012_img_val.tar", "parquet": "data/validation-00001-of-00002.parquet"}
    archive = tmp_path / name.get(form, "imagenet1k-validation-01.tar")
    whole = archive.read_bytes()
    boundary = 0
    if form != "parquet":
        with tarfile.open(archive) as tar:
            boundary = tar.getmembers()[1].offset  # where tarfile itself sees a whole archive
    for length in (len(whole) // 2, boundary, 100):
        archive.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=rf"{archive.name} is truncated or not .*download it again"):
            list(parquet.rows(archive) if form == "parquet" else tars.members(archive))
    if form != "parquet":
        refused(tmp_path, rf"{archive.name} is truncated")


def test_a_truncated_tar_inside_the_training_tar(tmp_path):
    inner = tar_bytes({"n01440764_1.JPEG": picture("1"), "n01440764_2.JPEG": picture("2")})
    put(tmp_path / "ILSVRC2012_img_train.tar", tar_bytes({"n01440764.tar": inner[:1536]}))
    refused(tmp_path, r"img_train\.tar \(the tar inside it at byte 512\) is truncated")
    put(tmp_path / "ILSVRC2012_img_train.tar", tar_bytes({"readme.txt": b"x"}))
    refused(tmp_path, r"member readme\.txt is not the tar of a class")


def hostile(name, kind=tarfile.REGTYPE):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd" if kind == tarfile.SYMTYPE else ""
        archive.addfile(info)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["../ILSVRC2012_val_00000001.JPEG", "/ILSVRC2012_val_00000001.JPEG", "a/../../b.JPEG"])
def test_a_member_that_climbs_out_is_refused_by_name_and_nothing_is_written(tmp_path, name):
    put(tmp_path / "in" / "ILSVRC2012_img_val.tar", hostile(name))
    refused(tmp_path / "in", rf"member '{name}' has an unsafe path")
    assert [p.name for p in tmp_path.rglob("*")] == ["in", "ILSVRC2012_img_val.tar"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_a_link_or_device_in_a_tar_is_refused(tmp_path, kind):
    put(tmp_path / "ILSVRC2012_img_val.tar", hostile("ILSVRC2012_val_00000001.JPEG", kind))
    refused(tmp_path, "member 'ILSVRC2012_val_00000001.JPEG' is a link or a device")


def test_a_compressed_tar_says_unpack(tmp_path):
    with tarfile.open(tmp_path / "v2.tar.gz", "w:gz"):
        pass
    refused(
        tmp_path,
        r"v2\.tar\.gz is truncated or not an uncompressed tar.*unpack it first",
        f"data.sources.v2={tmp_path}/v2.tar.gz",
    )


def test_missing_files_of_a_numbered_set_are_named(tmp_path):
    originals(tmp_path, "parquet")
    (tmp_path / "data" / "train-00001-of-00002.parquet").unlink()
    refused(tmp_path, r"1 files are missing: train-00001-of-00002\.parquet", "data.check_counts=true")
    originals(tmp_path / "w", "webdataset")
    refused(tmp_path / "w", r"1,022 files are missing: imagenet1k-train-0002\.tar", "data.check_counts=true")


def test_parquet_rows_without_what_is_needed(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "train-00000-of-00001.parquet"
    for rows, labels, message in [
        ([{"bytes": b"x", "path": None}], [0], "no file name"),
        ([{"bytes": None, "path": "n01440764_1.JPEG"}], [0], "no image bytes"),
        ([{"bytes": b"x", "path": "ILSVRC2012_test_00000001.JPEG"}], [-1], "move the test split elsewhere"),
    ]:
        pq.write_table(
            pa.table(
                {"image": pa.array(rows, pa.struct({"bytes": pa.binary(), "path": pa.string()})), "label": labels}
            ),
            path,
        )
        with pytest.raises(ValueError, match=rf"{path.name}: .*{message}"):
            list(parquet.rows(path))
    pq.write_table(pa.table({"img": [b"x"], "label": [0]}), path)
    with pytest.raises(ValueError, match="columns img, label; expected image and label"):
        list(parquet.rows(path))


def listed(labels, key="n{0}_{1}"):
    return Listing.of(Found(key.format(label, i), label, "x", "", 0, 1) for i, label in enumerate(labels))


def test_what_is_missing_is_said_exactly():
    val = [f"ILSVRC2012_val_{i:08d}" for i in range(1, 50_001) if i not in (7, 49_999)]
    images = Listing.of(Found(k, 0, "x", "", 0, 1) for k in val)
    with pytest.raises(
        ValueError, match=r"val: found 49,998 of 50,000 .*2 missing images; no .*_00000007, .*_00049999; restore"
    ):
        counts.check("val", images, "folder x")
    v2 = [label for label in range(1000) for _ in range(10) if label != 3][1:]
    with pytest.raises(
        ValueError, match=r"11 missing images; 1 class without images: 3; 1 class with fewer than 10 images: 0 \(9\)"
    ):
        counts.check("v2", listed(v2), "folder x")
    r = [i % 200 for i in range(30_000)]
    counts.check("r", listed(r), "folder x")
    with pytest.raises(ValueError, match=r"r: found 30,001 of 30,000 images in folder x: 1 extra images"):
        counts.check("r", listed([*r, 0]), "folder x")
    with pytest.raises(ValueError, match="this is ObjectNet beta"):
        counts.check("objectnet", listed([i % 113 for i in range(18_514)]), "folder x")
    train = [i % 999 for i in range(1_281_167 // 8)]
    with pytest.raises(ValueError, match=r"train: .*class without images: n15075141; 999 classes with fewer than 732"):
        counts.check("train", listed(train), "folder x")


DAMAGED = {
    "cut": (picture("x")[:-200], "not a complete image"),
    "no end": (picture("x")[:-2] + b"ab", "not a complete image"),
    "more behind its end": (picture("x") + b"\n", None),  # what the decoder takes is taken
    "empty": (b"", "empty file"),
    "text": (b"<html>404</html>", "cannot identify image file"),
    "png": (picture("x.png")[:-30], "not a complete image"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_corrupt_image_is_named_and_one_that_decodes_is_kept(damage):
    data, message = DAMAGED[damage]
    if message is None:
        assert stored(data, "x/y.JPEG", Storing()) == (data, "jpg")
        return
    with pytest.raises(ValueError, match=rf"x/y\.JPEG is not a complete image \(.*|{message}"):
        stored(data, "x/y.JPEG", Storing())


def test_verify_finds_damage_inside_an_image():
    data = bytearray(picture("n01440764_1.png"))
    data[60:70] = bytes(10)
    assert stored(bytes(data), "x", Storing()) == (bytes(data), "png")
    with pytest.raises(ValueError, match="x is not a complete image"):
        stored(bytes(data), "x", Storing(verify=True))


def test_a_corrupt_image_stops_prepare_and_leaves_no_set_that_looks_whole(tmp_path):
    root = originals(tmp_path, "folder")
    bad = next((root / "val").rglob("*_00010218.JPEG"))
    whole = bad.read_bytes()
    bad.write_bytes(whole[:300])
    with pytest.raises(ValueError, match=r"_00010218\.JPEG is not a complete image.*replace it"):
        prepare.run(Experiment(config(root)))
    assert not Experiment(config(root)).sets.is_prepared("val")
    bad.write_bytes(whole)
    prepare.run(Experiment(config(root)))
    assert Experiment(config(root)).sets.is_prepared("val")
    left = [p.name for p in (root / "shards").rglob("*") if p.name.endswith(".tmp") or p.name == writing.PLAN]
    assert left == []


def test_a_full_disk_is_seen_before_and_while_writing(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(ValueError, match=r"writing needs .* GB in .*choose another data\.dir"):
        prepare.run(Experiment(config(originals(tmp_path, "folder"))))

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    images = Listing.of([Found("k", 0, str(put(tmp_path / "k.JPEG", picture("k"))), "", 0, len(picture("k")))])
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"could not write .*s-000000\.tar: No space left"):
        writing.write(writing.Shard(tmp_path / "s" / "s-000000.tar", images, Storing()))
    assert list((tmp_path / "s").iterdir()) == []


def test_a_source_that_changes_while_it_is_read(tmp_path):
    path = put(tmp_path / "k.JPEG", picture("k"))
    images = Listing.of([Found("k", 0, str(tmp_path), "k.JPEG", 0, len(picture("k")))])
    path.write_bytes(picture("k")[:100])
    with pytest.raises(ValueError, match=r"k\.JPEG changed while it was read: 100 of"):
        images.read(0)


def test_a_second_prepare_of_the_same_folder_is_kept_out(tmp_path):
    root = originals(tmp_path, "folder")
    (root / "shards").mkdir()
    with open(root / "shards" / ".lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another `modelsoups prepare` is writing"):
            prepare.run(Experiment(config(root)))


def test_names_with_dots_and_spaces_stay_different():
    keys = {key_of("n01498041", stem) for stem in ("0.1_a b_0.2", "0.1_a_b_0.2", "0_1_a b_0.2", "0_1_a_b_0_2")}
    assert len(keys) == 4


def test_objectnet_folders_without_a_class_are_left_out(tmp_path):
    root = shift_sets(tmp_path)
    source = sources.find("objectnet", str(root), None)
    images = trees.list_tree("objectnet", source)
    assert len(images) == sum(map(len, SHIFTS["objectnet-1.0/images"].values())) - 1
    assert projections.objectnet()["air_freshener"] == ()


def test_a_shard_of_the_plan_is_not_taken_from_other_images(tmp_path):
    """A shard that is there in full but holds other images, or was damaged since, is written again."""
    root = originals(tmp_path, "folder")
    prepare.run(Experiment(config(root)))
    train = root / "shards" / "train"
    inputs = storage.read_json(train / "manifest.json")["inputs"]
    before = {p.name: p.read_bytes() for p in train.glob("*.tar")}
    (train / "manifest.json").unlink()
    storage.write_json(train / writing.PLAN, inputs)
    shutil.copy(train / "train-000000.tar", train / "train-000001.tar")
    shutil.copy(train / "train-000000.npz", train / "train-000001.npz")
    with open(train / "train-000002.tar", "ab") as file:
        file.write(bytes(512))
    times = {p.name: p.stat().st_mtime_ns for p in train.glob("*.tar")}
    prepare.run(Experiment(config(root)))
    assert {p.name: p.read_bytes() for p in train.glob("*.tar")} == before
    redone = {p.name for p in train.glob("*.tar") if p.stat().st_mtime_ns != times[p.name]}
    assert redone == {"train-000001.tar", "train-000002.tar"}


def test_a_listing_of_nothing_is_an_error(tmp_path):
    (tmp_path / "train" / "n01440764").mkdir(parents=True)
    (tmp_path / "train" / "n01440764" / "notes.txt").write_text("x")
    refused(tmp_path, "train: folder .* contains no images")
    assert np.array_equal(Listing.of([]).label_N, [])

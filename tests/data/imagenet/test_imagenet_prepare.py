"""prepare for ImageNet: every input form gives the same shards, with the right labels, from the real layouts."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from layouts import (
    CMYK,
    FORMS,
    GREY,
    PNG,
    TRAIN,
    VAL,
    originals,
    picture,
    prepared_sets,
    put,
    shift_sets,
    tar_bytes,
    train_images,
)
from PIL import Image

from modelsoups.config.compose import load
from modelsoups.data import shards
from modelsoups.data.imagenet import metadata, projections, sources
from modelsoups.data.shards import ShardSet
from modelsoups.data.storing import Storing, stored
from modelsoups.disk import paths, storage
from modelsoups.experiment.experiment import Experiment
from modelsoups.stages import prepare
from modelsoups.stats.projection import project


def config(root, *more):
    options = ["experiment=imagenet", f"data.root={root}", f"data.dir={root}/shards", "data.check_counts=false"]
    return load([*options, "data.holdout_per_class=2", "data.shard_images=5", "data.workers=2", *more])


def opened(cfg, name):
    return ShardSet(Path(cfg.data.dir) / name)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """form -> configuration, after prepare; the form "folder" has the test sets too."""
    made = {}
    for form in FORMS:
        root = originals(tmp_path_factory.mktemp(form), form)
        if form == "folder":
            shift_sets(root)
        made[form] = config(root)
        assert prepare.run(Experiment(made[form]))
    return made


def test_every_form_gives_the_same_shards(prepared):
    for name in ("train", "holdout", "val"):
        found = {form: opened(cfg, name) for form, cfg in prepared.items()}
        assert len({s.sha256 for s in found.values()}) == 1
        reference = found["folder"]
        for dataset in found.values():
            assert dataset.keys_N.tolist() == reference.keys_N.tolist()
            assert all(dataset.read(i) == reference.read(i) for i in range(len(reference)))
        files = [sorted(p.name for p in s.folder.glob("*.tar")) for s in found.values()]
        assert all(f == files[0] for f in files)


def test_images_keep_their_bytes_names_and_labels(prepared):
    cfg = prepared["tar"]
    train, held, val = (opened(cfg, name) for name in ("train", "holdout", "val"))
    everything = dict(
        zip([*train.keys_N, *held.keys_N], [d.read(i) for d in (train, held) for i in range(len(d))], strict=True)
    )
    assert everything == train_images()
    for dataset in (train, held):
        labels = [metadata.class_of()[key.partition("_")[0]] for key in dataset.keys_N]
        assert dataset.labels_N.tolist() == labels
    assert val.keys_N.tolist() == sorted(val.keys_N, key=lambda k: (metadata.val_labels()[int(k[-8:]) - 1], k))
    assert val.labels_N.tolist() == sorted(metadata.val_labels()[n - 1] for n in VAL)
    assert metadata.val_labels()[0] == metadata.class_of()["n01751748"]  # sea snake, as TFDS and the devkit have it


def test_odd_images_of_imagenet_are_kept_and_decode_to_rgb(prepared):
    cfg = prepared["webdataset"]
    seen = {}
    for name in ("train", "holdout"):
        dataset = opened(cfg, name)
        for i, key in enumerate(dataset.keys_N):
            seen[key] = dataset.image(i)
            assert seen[key].mode == "RGB"
    expected = Image.open(io.BytesIO(picture(CMYK)))
    assert expected.mode == "CMYK"
    assert np.array_equal(seen[CMYK], expected.convert("RGB"))
    assert np.array_equal(seen[GREY], Image.open(io.BytesIO(picture(GREY))).convert("RGB"))
    members = []
    for shard in Path(cfg.data.dir).glob("*/*.tar"):
        with tarfile.open(shard) as archive:
            members += archive.getnames()
    assert f"{PNG}.png" in members
    assert f"{CMYK}.jpg" in members


def test_training_shards_mix_the_classes(prepared):
    labels = opened(prepared["tar"], "train").labels_N
    assert len(set(labels[:5].tolist())) > 1
    assert labels.tolist() != sorted(labels.tolist())


def test_labels_of_the_test_sets_are_positions_in_their_own_label_space(prepared):
    cfg = prepared["folder"]
    found = {name: opened(cfg, name) for name in ("v2", "r", "sketch", "objectnet", "a")}
    assert found["v2"].labels_N.tolist() == [0, 2, 10, 999, 999]  # numbers, not strings
    assert found["sketch"].labels_N.tolist() == [0, 746, 999]
    r = [projections.label_names("r")[label] for label in found["r"].labels_N]
    assert r == ["n01443537", "n01443537", "n12267677"]
    assert found["a"].labels_N.tolist() == [0, 0, 199]
    assert [projections.scored_folders()[label] for label in found["objectnet"].labels_N] == [
        "alarm_clock",
        "alarm_clock",
        "banana",
        "wok",
    ]
    for name, dataset in found.items():
        assert dataset.role == "shift"
        assert len(set(dataset.keys_N)) == len(dataset)
        assert not any("." in key or " " in key for key in dataset.keys_N), name
        assert len(dataset.classes) == 1000
        assert len(dataset.templates) == 80


def test_projections_are_those_of_the_official_code(prepared):
    """R and A: 200 classes before argmax. ObjectNet: the largest of each folder's classes."""
    import torch

    cfg = prepared["folder"]
    logits_NC = torch.zeros(1, 1000)
    logits_NC[0, metadata.class_of()["n01443537"]] = 1  # in R
    logits_NC[0, 0] = 2  # not in R: must not count
    assert project(logits_NC, opened(cfg, "r").projection).argmax() == 0
    logits_NC = torch.zeros(1, 1000)
    logits_NC[0, 530] = 1  # digital clock: ObjectNet's alarm_clock covers 409 and 530
    projected_NC = project(logits_NC, opened(cfg, "objectnet").projection)
    assert projected_NC.shape == (1, 113)
    assert projections.scored_folders()[int(projected_NC.argmax())] == "alarm_clock"
    assert projections.objectnet()["alarm_clock"] == (409, 530)


def test_the_manifest_says_what_a_set_is_and_where_it_came_from(prepared):
    cfg = prepared["parquet"]
    manifest = storage.read_json(Path(cfg.data.dir) / "holdout" / "manifest.json")
    assert manifest["images"] == 8
    assert manifest["labels"] == list(metadata.wnids())
    assert {i: n for i, n in enumerate(manifest["counts"]) if n} == {0: 2, 1: 2, 6: 2, 230: 2}
    assert manifest["source"]["form"] == "parquet"
    assert manifest["inputs"]["holdout"] == {"rule": "smallest sha256 of the name", "per_class": 2}
    names = storage.read_json(Path(cfg.data.dir) / "holdout" / "split.json")["names"]
    assert names == sorted(opened(cfg, "holdout").keys_N)
    assert not (Path(cfg.data.dir) / ".parquet").exists()


def test_train_and_holdout_have_no_image_in_common_and_the_check_says_so(prepared):
    train, held = (opened(prepared["tar"], name) for name in ("train", "holdout"))
    shards.check_disjoint(train, held)
    assert len(train) + len(held) == sum(map(len, TRAIN.values()))
    train.keys_N[3] = held.keys_N[1]
    with pytest.raises(ValueError, match=rf"holdout and .*train share 1 images, first {held.keys_N[1]}"):
        shards.check_disjoint(train, held)


def test_what_is_complete_is_not_made_again_even_without_the_source(prepared, capsys):
    cfg = prepared["folder"]
    cfg.data.root = "/nowhere"
    assert prepare.run(Experiment(cfg)) is False
    assert "complete, 8 data sets" in capsys.readouterr().out
    assert prepared_sets(cfg) == ["train", "holdout", "val", "v2", "r", "sketch", "objectnet", "a"]


def test_other_options_are_refused_and_not_mixed(prepared):
    root = prepared["tar"].data.root
    with pytest.raises(ValueError, match=r"train was prepared with .*choose another data\.dir"):
        prepare.run(Experiment(config(root, "data.holdout_per_class=3")))


def test_sets_that_are_not_there_are_named_and_the_rest_is_made(tmp_path, capsys):
    root = originals(tmp_path, "folder")
    put(root / "imagenet-a.tar", tar_bytes({f"imagenet-a/n01498041/{n}": picture(n) for n in ("0.1_x_0.2.jpg",)}))
    cfg = config(root)
    assert prepare.run(Experiment(cfg))
    out = capsys.readouterr().out
    assert "sketch: not available" in out
    assert (
        f"{root} has no sketch/ or wds_imagenet_sketch_test/ (if its files are elsewhere, set data.sources.sketch=...)"
        in out
    )
    assert "a: tar" in out
    assert prepared_sets(cfg) == ["train", "holdout", "val", "a"]
    assert prepare.run(Experiment(cfg)) is False  # nothing new to make
    assert prepared_sets(config(root)) == ["train", "holdout", "val", "a"]


def test_paper_protocol_cuts_objectnets_border_and_released_does_not(tmp_path):
    root = shift_sets(tmp_path)
    sizes = {}
    for protocol in ("released", "paper"):
        cfg = config(root, f"protocol={protocol}", f"data.dir={root}/{protocol}")
        prepare.run(Experiment(cfg))
        dataset = opened(cfg, "objectnet")
        sizes[protocol] = (dataset.image(0).size, dataset.sha256)
        assert opened(cfg, "r").image(0).size == (24, 20)
    assert sizes["released"][0] == (24, 20)
    assert sizes["paper"][0] == (20, 16)
    assert sizes["paper"][1] != sizes["released"][1]


def test_training_images_are_made_smaller_and_evaluation_images_never(tmp_path):
    big = Image.frombytes("RGB", (8, 8), bytes(range(192))).resize((96, 64))
    buffer = io.BytesIO()
    big.convert("CMYK").save(buffer, format="jpeg")
    small, kind = stored(buffer.getvalue(), "x", Storing(32))
    image = Image.open(io.BytesIO(small))
    assert (kind, image.size, image.mode) == ("jpg", (48, 32), "RGB")
    assert stored(small, "x", Storing(32)) == (small, "jpg")  # never larger
    root = originals(tmp_path, "folder")
    put(root / "train" / "n01440764" / "n01440764_7.JPEG", buffer.getvalue())
    put(root / "val" / "n01751748" / "ILSVRC2012_val_00000001.JPEG", buffer.getvalue())
    cfg = config(root, "data.train_resize=32", "data.holdout_per_class=1")
    prepare.run(Experiment(cfg))
    widths = {
        name: {opened(cfg, name).image(i).width for i in range(len(opened(cfg, name)))} for name in ("train", "val")
    }
    assert widths == {"train": {24, 48}, "val": {24, 96}}
    raw = config(
        root, "data.train_resize=32", "data.holdout_per_class=1", "data.train_format=raw", f"data.dir={tmp_path}/raw"
    )
    prepare.run(Experiment(raw))
    train, val = opened(raw, "train"), opened(raw, "val")
    assert all(train.read(i).startswith(b"P6") for i in range(len(train)))
    assert {train.image(i).size for i in range(len(train))} == {(24, 20), (48, 32)}
    assert not any(val.read(i).startswith(b"P6") for i in range(len(val)))
    assert (train.keys_N == opened(cfg, "train").keys_N).all()  # so every draw is the same


def test_counts_of_every_set_agree_with_the_released_accuracies():
    """Every released accuracy times the number of images is a whole number."""
    path = paths.ASSETS / "released" / "released_models_results.jsonl"
    columns = {"ImageNet": "val", "ImageNetV2": "v2", "ImageNetR": "r", "ImageNetSketch": "sketch"}
    columns |= {"ImageNetA": "a", "ObjectNet": "objectnet"}
    rows = storage.read_jsonl(path)
    assert len(rows) == 72
    for row in rows:
        for column, name in columns.items():
            right = row[column] * metadata.SETS[name].images
            assert right == pytest.approx(round(right), abs=1e-6), (column, row["model_name"])


def test_the_authors_layout_is_found(tmp_path):
    """$DATA_LOCATION of their datasets.md: imagenet/ with train/ and val/, the test sets beside it."""
    originals(tmp_path / "imagenet", "folder")
    for name in ("train", "holdout", "val"):
        found = sources.find(name, str(tmp_path), None)
        folder = "val" if name == "val" else "train"
        assert (found.form, found.paths) == ("folder", (tmp_path / "imagenet" / folder,))


def test_a_missing_hold_out_names_the_key_of_the_training_set(tmp_path):
    for name, key in {"holdout": "train", "train": "train", "val": "val", "sketch": "sketch"}.items():
        assert sources.find(name, str(tmp_path), None).endswith(f"set data.sources.{key}=...)")
    with pytest.raises(ValueError, match=r"data\.sources\.train=/nowhere does not exist"):
        sources.find("holdout", None, "/nowhere")

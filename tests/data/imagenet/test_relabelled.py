"""ReaL and multilabel: other labels over val's shards, scored by hand-worked rules."""

import json
import shutil

import pytest
import torch
from layouts import VAL, originals, put
from test_imagenet_prepare import config, opened

from modelsoups.data.imagenet import metadata, relabelled
from modelsoups.experiment.experiment import Experiment
from modelsoups.stages import prepare

ANNOTATIONS = {
    "initial_annots": {
        "ILSVRC2012_val_00000002.JPEG": {"correct": ["n01440764"], "wrong": ["n01443537"], "unclear": ["n01498041"]},
        "ILSVRC2012_val_00000003.JPEG": {"correct": ["n01443537"], "wrong": []},
        "ILSVRC2012_val_00000010.JPEG": {"correct": ["n01443537"]},
    },
    "problematic_images": {"ILSVRC2012_val_00000010.JPEG": "several"},
    "imagenet_m": [],
}


@pytest.fixture
def cfg(tmp_path):
    put(tmp_path / "human.json", json.dumps(ANNOTATIONS).encode())
    made = config(
        originals(tmp_path, "folder"), "data.extra=[real,multilabel]", f"data.sources.multilabel={tmp_path}/human.json"
    )
    prepare.run(Experiment(made))
    return made


def test_relabelled_sets_share_vals_shards_and_skip_what_has_no_label(cfg):
    val, real, multi = (opened(cfg, name) for name in ("val", "real", "multilabel"))
    assert not list(real.folder.glob("*.tar"))
    listed = [n for n in VAL if metadata.real_labels()[n - 1]]
    assert 1 not in listed  # ReaL gives the first image no label
    assert sorted(int(k[-8:]) for k in real.keys_N) == listed
    assert sorted(multi.keys_N) == ["ILSVRC2012_val_00000002", "ILSVRC2012_val_00000003"]
    rows_N, answers_NA, classes_N = relabelled.load(real)
    for i, key in enumerate(real.keys_N):
        assert real.read(i) == val.read(int(rows_N[i]))
        assert val.keys_N[rows_N[i]] == key
        number = int(key[-8:]) - 1
        assert [a for a in answers_NA[i].tolist() if a >= 0] == list(metadata.real_labels()[number])
        assert classes_N[i] == metadata.val_labels()[number]
    assert (real.scoring["average"], multi.scoring["average"]) == ("images", "classes")
    assert val.scoring is None
    assert prepare.run(Experiment(cfg)) is False


def test_score_from_vals_logits(cfg):
    val, multi = opened(cfg, "val"), opened(cfg, "multilabel")
    logits_NC = torch.zeros(len(val), 1000)
    where = {key: i for i, key in enumerate(val.keys_N)}
    logits_NC[where["ILSVRC2012_val_00000002"], 6] = 1  # unclear counts as right
    logits_NC[where["ILSVRC2012_val_00000003"], 0] = 1  # wrong
    correct_N, weight_N = relabelled.score(multi, logits_NC)
    assert correct_N.sum() == 1
    assert weight_N.tolist() == [0.5, 0.5]
    real = opened(cfg, "real")
    rows_N, answers_NA, _ = relabelled.load(real)
    logits_NC.zero_()
    logits_NC[rows_N, answers_NA[torch.arange(len(rows_N)), 0]] = 1
    correct_N, weight_N = relabelled.score(real, logits_NC)
    assert correct_N.all()
    assert (len(correct_N), weight_N) == (len(real), None)


def test_relabelled_sets_need_val_and_the_annotations(tmp_path, capsys):
    root = originals(tmp_path, "folder")
    shutil.rmtree(root / "val")
    prepare.run(Experiment(config(root, "data.extra=[real]")))
    assert "real: not available: it needs val, which is not prepared" in capsys.readouterr().out
    root = originals(tmp_path / "b", "folder")
    prepare.run(Experiment(config(root, "data.extra=[multilabel]")))
    assert "set data.sources.multilabel to the file human_accuracy_v3.0.0.json" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"data\.sources\.multilabel=/no\.json does not exist"):
        prepare.run(Experiment(config(root, "data.extra=[multilabel]", "data.sources.multilabel=/no.json")))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([], "lacks initial_annots or problematic_images"),
        ({"initial_annots": {"dog.JPEG": {}}, "problematic_images": []}, "dog.JPEG is not named ILSVRC2012_val"),
        (
            {"initial_annots": {"ILSVRC2012_val_00000002.JPEG": {"correct": ["n1"]}}, "problematic_images": []},
            "has label n1, which is not an ImageNet class",
        ),
    ],
)
def test_other_annotation_files_are_refused(tmp_path, table, message):
    path = put(tmp_path / "human.json", json.dumps(table).encode())
    with pytest.raises(ValueError, match=message):
        relabelled.answers("multilabel", str(path), complete=False)
    with pytest.raises(ValueError, match="expected"):
        relabelled.answers("multilabel", str(path), complete=True)


def test_another_val_under_a_relabelled_set_is_noticed(cfg):
    real = opened(cfg, "real")
    tar = next((real.folder.parent / "val").glob("*.tar"))
    tar.write_bytes(tar.read_bytes() + bytes(512))
    with pytest.raises(ValueError, match=r"val-00000\d\.tar has changed since .*real was created from it"):
        opened(cfg, "real")

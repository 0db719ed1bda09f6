"""A folder per domain (PACS and DomainBed's other data), from files to shards."""

import numpy as np
import pytest
from PIL import Image

from modelsoups.config.compose import load
from modelsoups.data import domains
from modelsoups.data.shards import ShardSet
from modelsoups.experiment.experiment import Experiment
from modelsoups.stages import prepare

DOMAINS = {"art_painting": 10, "cartoon": 20, "photo": 10, "sketch": 3}  # images of each class
CLASSES = ["dog", "elephant", "giraffe"]


def picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A small PACS in the official layout."""
    monkeypatch.chdir(tmp_path)
    for d, (domain, count) in enumerate(DOMAINS.items()):
        for c, class_name in enumerate(CLASSES):
            for i in range(count):
                picture(tmp_path / "PACS" / domain / class_name / f"pic_{i:03d}.png", 10_000 * d + 100 * c + i)
    return tmp_path / "PACS"


def pacs(*overrides):
    return load(["experiment=pacs", "data.root=PACS", "data.workers=1", *overrides])


def test_domains_are_divided_by_class_and_the_others_are_whole(root):
    cfg = pacs()
    assert prepare.run(Experiment(cfg))
    sets = {name: ShardSet(root.parent / cfg.data.dir / name) for name in ("train", "holdout", "test", "sketch")}
    assert {name: len(each) for name, each in sets.items()} == {"train": 84, "holdout": 24, "test": 12, "sketch": 9}
    assert sets["train"].classes == CLASSES
    assert np.bincount(sets["holdout"].labels_N).tolist() == [8, 8, 8]
    assert np.bincount(sets["holdout"].groups_N).tolist() == [6, 12, 6]  # of each domain a fifth
    assert (sets["sketch"].role, sets["sketch"].projection) == ("shift", None)
    keys = [set(each.keys_N) for each in sets.values()]
    assert len(set.union(*keys)) == sum(map(len, keys))
    assert not prepare.run(Experiment(cfg))


def test_copies_stay_together_and_a_limit_takes_training_images_alone(root):
    images = sorted((root / "photo" / "dog").iterdir())
    for i, image in enumerate(images[:3]):
        (root / "photo" / "dog" / f"copy_{i}.png").write_bytes(image.read_bytes())
    whole, few = pacs("data.dir=whole"), pacs("data.dir=few", "data.limit=30")
    prepare.run(Experiment(whole))
    prepare.run(Experiment(few))
    assert len(ShardSet(root.parent / "few" / "train")) == 30
    assert ShardSet(root.parent / "few" / "holdout").sha256 == ShardSet(root.parent / "whole" / "holdout").sha256
    assert set(ShardSet(root.parent / "few" / "train").keys_N) <= set(ShardSet(root.parent / "whole" / "train").keys_N)


def test_a_shift_may_lack_classes(root):
    for image in (root / "sketch" / "elephant").iterdir():
        image.unlink()
    (root / "sketch" / "elephant").rmdir()
    cfg = pacs()
    prepare.run(Experiment(cfg))
    assert ShardSet(root.parent / cfg.data.dir / "sketch").projection == {"kind": "subset", "indices": [0, 2]}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.shifts=[quickdraw]"], r"PACS/quickdraw is missing; data.root has art_painting, cartoon, photo, sketch"),
        (["data.shifts=[photo]"], "photo is named twice in data.domains, data.shifts"),
        (["data.domains=[]"], "data.domains is empty; name the folders to train on"),
        (["data.holdout_fraction=0.95"], "leave no training image"),
        (["data.test_fraction=0"], "data.test_fraction=0.0: expected a number above 0 and below 1"),
        (["data.root=null"], r"data.root is null; set it to the folder with art_painting, cartoon, photo, sketch"),
    ],
)
def test_wrong_keys_are_named(root, overrides, said):
    with pytest.raises(ValueError, match=said):
        domains.names(pacs(*overrides).data)


def test_classes_that_do_not_fit_are_named(root):
    picture(root / "sketch" / "owl" / "0.png", 0)
    with pytest.raises(ValueError, match="sketch/owl: art_painting has no such class; rename or move it"):
        domains.inputs(pacs().data, "paper", "sketch")
    (root / "cartoon" / "dog").rename(root / "dog")
    with pytest.raises(ValueError, match="cartoon: no folder for class dog; add one with its images"):
        domains.inputs(pacs().data, "paper", "train")

"""An interrupted prepare goes on where it stopped, and holds one image in memory at a time."""

import tracemalloc

from layouts import picture, prepared_sets, put
from pico import kill_when
from test_imagenet_prepare import opened

from modelsoups.config.compose import load
from modelsoups.data.imagenet import writing
from modelsoups.data.imagenet.listing import Found, Listing
from modelsoups.data.storing import Storing
from modelsoups.experiment.experiment import Experiment
from modelsoups.stages import prepare


def many(root):
    for wnid in ("n01440764", "n01443537"):
        for number in range(60):
            put(root / "train" / wnid / f"{wnid}_{number}.JPEG", picture(f"{wnid}_{number}"))
    return root


def options(root, out):
    return [
        "experiment=imagenet",
        f"data.root={root}",
        f"data.dir={out}",
        "data.check_counts=false",
        "data.holdout_per_class=10",
        "data.shard_images=1",
        "data.workers=2",
    ]


def test_killed_with_9_in_the_middle_only_unfinished_shards_are_made_again(tmp_path, capsys):
    root = many(tmp_path / "in")
    out = tmp_path / "out"
    assert kill_when(tmp_path, ["prepare", *options(root, out)], "out/train/train-00002?.npz")
    finished = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in out.glob("*/*.npz")}
    assert 10 < len(finished) < 120
    cfg = load(options(root, out))
    assert prepared_sets(cfg) == [n for n in ("train", "holdout") if (out / n / "manifest.json").exists()]
    assert "train" not in prepared_sets(cfg)
    prepare.run(Experiment(cfg))
    assert {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in finished} == finished
    assert f"{len(finished)} of 120 shards are already written" in capsys.readouterr().out
    assert not list(out.rglob(".*.tmp"))
    undisturbed = load(options(root, tmp_path / "again"))
    prepare.run(Experiment(undisturbed))
    for name in ("train", "holdout"):
        assert opened(cfg, name).sha256 == opened(undisturbed, name).sha256


def test_shards_of_other_options_are_made_again(tmp_path):
    root = many(tmp_path / "in")
    out = tmp_path / "out"
    kill_when(tmp_path, ["prepare", *options(root, out)], "out/train/train-00002?.npz")
    cfg = load([*options(root, out), "data.train_resize=32", "data.shard_images=7"])
    prepare.run(Experiment(cfg))
    assert len(opened(cfg, "train")) == 100
    assert len(list((out / "train").glob("*.tar"))) == 15


def test_a_shard_of_large_images_is_written_one_image_at_a_time(tmp_path):
    padding = b"\xff\xfe\xff\xff" + bytes(65533)  # a comment, as long as they get
    image = picture("k")
    data = image[:2] + 16 * padding + image[2:]
    path = put(tmp_path / "k.JPEG", data)
    images = Listing.of(Found(f"k{i}", 0, str(path.parent), path.name, 0, len(data)) for i in range(60))
    tracemalloc.start()
    entry = writing.write(writing.Shard(tmp_path / "s" / "s-000000.tar", images, Storing()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert entry["bytes"] > 60 * 2**20
    assert peak < 8 * 2**20

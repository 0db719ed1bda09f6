"""What `modelsoups submit` hands to SLURM in which order, and what it refuses in one line."""

import dataclasses
import json
import shutil

import pytest
from pico import SEARCH, first

from modelsoups.cluster import slurm, submit
from modelsoups.cluster.scripts import CHAIN, OF_POOLS
from modelsoups.config.compose import load
from modelsoups.data import shards
from modelsoups.disk import lock, manifests, paths
from modelsoups.experiment.experiment import Experiment
from modelsoups.recipes.recipe import Recipe
from modelsoups.stages import finetune


def test_a_dry_run_prints_the_chain_and_makes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nonexistent")
    assert submit.run(Experiment(load(["submit.dry_run=true", "name=dry"]))) is False
    said = capsys.readouterr().out
    assert "12 ingredients: 0 complete, 0 failed, 12 to train" in said
    dependencies = [line.split()[2] for line in said.splitlines() if line.startswith("### sbatch --")]
    assert dependencies == [
        "--dependency=afterok:<prepare>",
        "--dependency=afterok:<heads>",
        "--dependency=afterany:<sweep>",
        "--dependency=afterok:<evaluate>",
        "--dependency=afterok:<soup>",
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("gpus", [1, 4])
def test_a_run_without_models_of_its_own_is_prepared_and_analysed(gpus, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["experiment=cross-datasets", "submit.dry_run=true", f"cluster.gpus_per_node={gpus}"]
    assert submit.run(Experiment(load(options))) is False
    said = capsys.readouterr().out
    assert "submit: the models are those of analyse.pools" in said
    assert [line for line in said.splitlines() if line.startswith("stages=")] == [
        "stages=(prepare)",
        "stages=(heads)",
        "stages=(analyse)",
    ]
    assert "### sbatch --dependency=afterok:<heads> --kill-on-invalid-dep=yes analyse.sbatch" in said
    assert said.count(f"#SBATCH --gpus-per-node={gpus}") == 2  # not for prepare
    assert list(tmp_path.iterdir()) == []


def test_without_sbatch_the_way_out_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ValueError, match=r"^squeue is not on PATH: .* login node .* submit\.dry_run=true"):
        submit.run(Experiment(load([])))


def test_a_cluster_file_in_the_working_folder_is_found_and_a_wrong_key_of_it_named(tmp_path, monkeypatch):
    (tmp_path / "conf/cluster").mkdir(parents=True)
    (tmp_path / "conf/cluster/mine.yaml").write_text(f"partition: gpu\nnodes: 2\nscratch: {tmp_path / 'scratch'}\n")
    (tmp_path / "conf/cluster/wrong.yaml").write_text("partitoin: gpu\n")
    monkeypatch.chdir(tmp_path)
    cfg = load(["cluster=mine", "name=x"])
    assert (cfg.cluster.partition, cfg.cluster.nodes) == ("gpu", 2)
    assert cfg.run.root == tmp_path / "scratch/runs/x"
    assert cfg.data.dir == str(tmp_path / "scratch/data/iconnet")
    with pytest.raises(ValueError, match=r"no such key: cluster\.partitoin; did you mean cluster\.partition\?"):
        load(["cluster=wrong"])
    with pytest.raises(ValueError, match="cluster/nope"):
        load(["cluster=nope"])


def recipe(batch_size):
    values = {"lr": 1e-3, "weight_decay": 0.0, "label_smoothing": 0.0, "mixup": 0.0, "warmup_steps": 0, "clip": 1.0}
    return Recipe(**values, epochs=1, batch_size=batch_size, seed=0, aug="minimal")


@pytest.mark.parametrize(
    ("batch", "ranks", "at_once", "parts"),
    [(7, 1, None, 1), (512, 1, None, 1), (512, 1, 128, 4), (512, 8, None, 1), (512, 8, 24, 4), (96, 4, 10, 3)],
)
def test_the_share_of_a_rank_and_its_parts_follow_from_the_recipes_batch(batch, ranks, at_once, parts):
    assert recipe(batch).accumulation(ranks, at_once) == parts


@pytest.mark.parametrize(("batch", "ranks", "at_once"), [(512, 3, None), (6, 6, None), (7, 1, 4)])
def test_a_batch_that_cannot_be_split_is_refused(batch, ranks, at_once):
    with pytest.raises(ValueError, match=rf"batch_size={batch} cannot be split over {ranks} ranks.* a multiple of"):
        recipe(batch).accumulation(ranks, at_once)


def test_a_batch_that_does_not_divide_is_refused_before_anything_is_submitted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"recipe\.batch_size=64 cannot be split over 3 ranks"):
        submit.run(Experiment(load(["cluster.nodes=3", "submit.dry_run=true"])))


class Cluster:
    """Stands for SLURM's commands: numbers the jobs, and refuses a script by name."""

    def __init__(self, monkeypatch, queue=(), refuses=None, size=1001):
        self.submitted, self.cancelled, self.refuses = [], [], refuses
        monkeypatch.setattr(slurm, "queue", lambda folder: list(queue))
        monkeypatch.setattr(slurm, "submit", self.submit)
        monkeypatch.setattr(slurm, "cancel", self.cancelled.extend)
        monkeypatch.setattr(slurm, "max_array_size", lambda: size)

    def submit(self, path, dependencies):
        if path.stem == self.refuses:
            raise ValueError("refused")
        array = [x.split("=")[1] for x in path.read_text().splitlines() if x.startswith("#SBATCH --array")]
        self.submitted.append((path.stem, *array, dependencies))
        return 100 + len(self.submitted)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pico.yaml").write_text(SEARCH)
    monkeypatch.setattr(submit, "unprepared", lambda experiment, recipes: ())
    return lambda more=(): load(["sweep.search=pico.yaml", *more])


def finished(cfg, index):
    cfg.run.ingredient(index).mkdir(parents=True)
    (cfg.run.ingredient(index) / "manifest.json").write_text(json.dumps({"inputs": {}, "files": {}}))


def test_only_what_is_not_done_is_submitted(here, monkeypatch, capsys):
    cluster = Cluster(monkeypatch)
    cfg = here()
    finished(cfg, 1)
    submit.run(Experiment(cfg))
    assert cluster.submitted == [
        ("sweep", "0,2", []),
        ("evaluate", ["afterany:101"]),
        ("soup", ["afterok:102"]),
        ("report", ["afterok:103"]),
    ]
    assert "1 complete, 0 failed, 2 to train" in capsys.readouterr().out


def test_only_the_part_of_preparing_that_is_missing_is_submitted(here, monkeypatch):
    begin = {}
    for missing, queue in ((("prepare", "heads"), ()), (("heads",), ()), (("prepare", "heads"), ("prepare",))):
        cluster = Cluster(monkeypatch, [slurm.Job(9, None, name, "RUNNING", "node1", "None") for name in queue])
        monkeypatch.setattr(submit, "unprepared", lambda experiment, recipes, missing=missing: missing)
        submit.run(Experiment(here([f"name={len(begin)}"])))
        begin[missing, queue] = cluster.submitted[:-3]
    assert list(begin.values()) == [
        [("prepare", []), ("heads", ["afterok:101"]), ("sweep", "0-2", ["afterok:102"])],
        [("heads", []), ("sweep", "0-2", ["afterok:101"])],
        [("heads", ["afterok:9"]), ("sweep", "0-2", ["afterok:101"])],
    ]


def test_what_is_in_the_queue_is_not_submitted_again_and_later_jobs_wait_for_it(here, monkeypatch, capsys):
    later = [slurm.Job(9, None, n, "PENDING", "", "Dependency") for n in ("evaluate", "soup", "report")]
    queue = [slurm.Job(7, i, "sweep", "RUNNING", "node1", "None") for i in range(3)] + later
    full = Cluster(monkeypatch, queue)
    submit.run(Experiment(here()))
    assert full.submitted == []
    assert capsys.readouterr().out.count("already in the queue") == 4
    part = Cluster(monkeypatch, queue[1:])
    submit.run(Experiment(here()))
    assert part.submitted == [
        ("sweep", "0", []),
        ("evaluate", ["afterany:7:101", "afterany:9"]),
        ("soup", ["afterok:102", "afterany:9"]),
        ("report", ["afterok:103", "afterany:9"]),
    ]


def test_when_slurm_refuses_a_job_the_earlier_ones_of_the_same_call_are_taken_back(here, monkeypatch):
    cluster = Cluster(monkeypatch, refuses="soup")
    with pytest.raises(ValueError, match="refused"):
        submit.run(Experiment(here()))
    assert cluster.cancelled == [101, 102]


def test_a_sweep_beyond_the_clusters_limit_is_several_arrays(here, monkeypatch):
    cluster = Cluster(monkeypatch, size=2)
    cfg = here()
    submit.run(Experiment(cfg))
    assert cluster.submitted[:3] == [("sweep", "0-1", []), ("sweep-2", "0", []), ("evaluate", ["afterany:101:102"])]
    text = (cfg.run.slurm / "sweep-2.sbatch").read_text()
    assert "\noffset=2\n" in text
    assert "/sweep-2-%A_%a.out" in text
    queue = [slurm.Job(102, 2, "sweep", "RUNNING", "node1", "None", 2)]
    cluster = Cluster(monkeypatch, queue, size=2)
    submit.run(Experiment(here(["cluster.concurrent=1"])))
    assert cluster.submitted[:2] == [("sweep", "0-1%1", []), ("evaluate", ["afterany:102:101"])]


def test_arrays_of_one_sweep_run_in_turn_where_only_some_may_run_at_once(here, monkeypatch):
    cluster = Cluster(monkeypatch, size=2)
    submit.run(Experiment(here(["cluster.concurrent=1"])))
    assert cluster.submitted[:2] == [("sweep", "0-1%1", []), ("sweep-2", "0%1", ["afterany:101"])]


def test_a_sweep_may_be_submitted_in_portions_and_the_rest_follows_the_last(here, monkeypatch, capsys):
    cluster = Cluster(monkeypatch)
    submit.run(Experiment(here(["submit.portion=2"])))
    assert cluster.submitted == [("sweep", "0-1", [])]
    assert "1 more ingredients are left for the next `modelsoups submit`" in capsys.readouterr().out
    queue = [slurm.Job(101, i, "sweep", "PENDING", "", "Priority") for i in (0, 1)]
    cluster = Cluster(monkeypatch, queue)
    submit.run(Experiment(here(["submit.portion=2"])))
    assert [job[0] for job in cluster.submitted] == ["sweep", "evaluate", "soup", "report"]
    assert cluster.submitted[1] == ("evaluate", ["afterany:101:101"])


def test_a_refused_submit_leaves_the_draw_free(here, monkeypatch):
    Cluster(monkeypatch, refuses="sweep")
    cfg = here()
    with pytest.raises(ValueError, match="refused"):
        submit.run(Experiment(cfg))
    assert not cfg.run.draw.exists()
    assert not cfg.run.draw_manifest.exists()
    Experiment(cfg).draw.write()
    with pytest.raises(ValueError, match="refused"):
        submit.run(Experiment(here(["sweep.count=4"])))
    assert len(Experiment(cfg).draw.recipes()) == 3  # as before


def test_a_failing_scancel_hides_nothing(here, monkeypatch):
    def away(ids):
        raise ValueError("Unable to contact slurm controller")

    Cluster(monkeypatch, refuses="evaluate")
    monkeypatch.setattr(slurm, "cancel", away)
    with pytest.raises(ValueError, match=r"^refused; the jobs before it are still queued \(Unable .*\): scancel 101$"):
        submit.run(Experiment(here()))


def test_jobs_stay_when_nobody_reads_what_submit_says(here, monkeypatch, tmp_path):
    cluster = Cluster(monkeypatch)

    def broken(*args, **options):
        raise BrokenPipeError

    with open(tmp_path / "closed", "w") as closed, monkeypatch.context() as patch:
        patch.setattr(submit, "print", broken, raising=False)
        patch.setattr(submit.sys, "stdout", closed)
        submit.run(Experiment(here()))
    assert len(cluster.submitted) == 4
    assert cluster.cancelled == []


def test_changes_that_do_not_reach_queued_jobs_are_said(here, monkeypatch, capsys):
    cfg = here()
    Cluster(monkeypatch)
    submit.run(Experiment(cfg))
    names = ("evaluate", "soup", "report")
    queue = [slurm.Job(101, i, "sweep", "RUNNING", "node1", "None") for i in range(3)]
    queue += [slurm.Job(102 + i, None, name, "PENDING", "", "Dependency") for i, name in enumerate(names)]
    Cluster(monkeypatch, queue)
    capsys.readouterr()
    submit.run(Experiment(here()))
    assert "no effect" not in capsys.readouterr().out
    submit.run(Experiment(here(["cluster.mem=64G", "cluster.time='10:00:00'"])))
    said = capsys.readouterr().out
    assert "changes have no effect on the queued sweep (mem, overrides, time); to apply them, run `scancel 101`" in said
    assert "changes have no effect on the queued soup (mem, overrides); to apply them, run `scancel 103`" in said


def test_of_two_submits_at_the_same_time_one_is_refused(here, monkeypatch):
    cluster = Cluster(monkeypatch)
    cfg = here()
    with lock.held(cfg.run.slurm), pytest.raises(ValueError, match="slurm is in use: process"):
        submit.run(Experiment(cfg))
    assert cluster.submitted == []


def test_sets_and_heads_of_other_options_are_not_taken_for_prepared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = make_prepared()
    recipes = Experiment(cfg).draw.extended()
    assert submit.unprepared(Experiment(cfg), recipes) == ()
    with pytest.raises(ValueError, match=r"train was prepared with .*'seed': 0.* but now needs .*'seed': 7"):
        submit.unprepared(Experiment(load(["data.dir=data", "data.seed=7"])), recipes)
    other = Experiment(load(["data.dir=data", "heads.lp_epochs=1"]))
    assert submit.unprepared(other, recipes) == ("heads",)  # its job makes the head again
    finished(cfg, 0)
    finished(cfg, 2)
    with pytest.raises(ValueError, match="lp was made with other options, and 2 ingredients are fine-tuned from it"):
        submit.unprepared(other, recipes)
    shutil.rmtree(cfg.run.ingredients)
    Experiment(cfg).draw.write()
    with pytest.raises(
        ValueError, match=r"lp was made with other options .*heads\.lp_epochs \(20, now 1\); `modelsoups he"
    ):
        finetune.run(other)
    with pytest.raises(ValueError, match="train was prepared with"):
        finetune.run(Experiment(load(["data.dir=data", "data.seed=7"])))


def test_the_initial_model_of_every_recipe_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = make_prepared()
    experiment = Experiment(cfg)
    recipes = [recipe(64), dataclasses.replace(recipe(64), init="lp-80")]
    assert submit.unprepared(experiment, recipes) == ("heads",)
    make_head(cfg, "lp-80")
    assert submit.unprepared(experiment, recipes) == ()
    finished(cfg, 0)
    make_head(cfg, "lp-80", {"init": "other"})
    assert submit.unprepared(experiment, recipes) == ("heads",)  # no ingredient has started from it
    finished(cfg, 1)
    with pytest.raises(ValueError, match="lp-80 was made with other options, and 1 ingredients are fine-tuned from it"):
        submit.unprepared(experiment, recipes)


def make_prepared():
    """A run with data sets of one image each and an empty initial model, with their manifests."""
    cfg = load(["data.dir=data"])
    sets = Experiment(cfg).sets
    for name in (cfg.data.train, cfg.data.holdout, cfg.data.test, *cfg.data.shifts):
        path = sets.folder(name) / f"{name}-000000.tar"
        entry = shards.write_shard(path, first(name, 1))
        shards.finish_set(path.parent, sets.inputs(name), [entry], sets.facts(name))
    make_head(cfg, cfg.heads.init)
    return cfg


def make_head(cfg, init, other=()):
    manifests.finish(cfg.run.head(init), {**Experiment(cfg).head_inputs(init), **dict(other)}, [], sha256="0")


EXPERIMENTS = sorted(path.stem for path in (paths.shipped("conf") / "experiment").glob("*.yaml"))
SIZES = {"one GPU": [], "nodes": ["cluster.nodes=2", "cluster.gpus_per_node=2"]}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_is_submitted_in_a_dry_run(tmp_path, monkeypatch, capsys, experiment, size):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nonexistent")
    opened = Experiment(load([f"experiment={experiment}", "name=x", "submit.dry_run=true", *SIZES[size]]))
    submit.run(opened)
    said = capsys.readouterr().out
    chain = CHAIN if opened.has_models else OF_POOLS
    titles = [line for line in said.splitlines() if line.startswith("### ") and "sbatch" not in line]
    assert [line.split(":")[0] for line in titles] == [f"### {piece.name}" for piece in chain]
    assert said.count(f"overrides=(experiment={experiment} name=x") == len(chain)
    nodes = [line.removeprefix("#SBATCH --nodes=") for line in said.splitlines() if line.startswith("#SBATCH --nodes")]
    assert nodes == ["2" if size == "nodes" and piece.name == "sweep" else "1" for piece in chain]
    gpus = [piece.models for piece in chain]
    assert ["#SBATCH --gpus-per-node=" in text for text in said.split("\n### sbatch ")[1:]] == gpus
    assert list(tmp_path.iterdir()) == []


def test_a_draw_that_changed_after_it_was_submitted_is_refused(here, monkeypatch):
    Cluster(monkeypatch)
    cfg = here()
    submit.run(Experiment(cfg))
    draw = cfg.run.draw.read_text()
    cfg.run.draw.write_text(draw.replace('"weight_decay": 0.05', '"weight_decay": 0.06', 1))
    with pytest.raises(ValueError, match=r"draw\.jsonl has changed since the sweep was submitted"):
        Experiment(cfg).draw.recipes()
    with pytest.raises(ValueError, match="the recipes of a run are fixed"):
        submit.run(Experiment(cfg))
    cfg.run.draw.write_text(draw)
    assert len(Experiment(cfg).draw.recipes()) == 3


def test_a_run_folder_that_cannot_be_written_is_named_and_nothing_submitted(here, monkeypatch):
    cluster = Cluster(monkeypatch)
    cfg = here()
    cfg.run.root.mkdir(parents=True)
    cfg.run.slurm.write_text("in the way")
    with pytest.raises(OSError, match="slurm"):
        submit.run(Experiment(cfg))
    assert cluster.submitted == []

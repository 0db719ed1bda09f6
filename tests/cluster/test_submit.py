"""What `modelsoups submit` hands to SLURM in which order, and what it refuses in one line."""

import functools
import json

import pytest
from pico import SEARCH

from modelsoups.cluster import slurm, submit
from modelsoups.config.compose import load
from modelsoups.experiment.experiment import Experiment
from modelsoups.recipes.recipe import Recipe


def test_a_dry_run_prints_the_chain_and_makes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nonexistent")
    assert submit.run(Experiment(load(["submit.dry_run=true", "name=dry"]))) is False
    said = capsys.readouterr().out
    assert "12 ingredients: 0 complete, 0 failed, 12 to train" in said
    dependencies = [line.split()[2] for line in said.splitlines() if line.startswith("### sbatch --")]
    assert dependencies == [
        "--dependency=afterok:<prepare>",
        "--dependency=afterany:<sweep>",
        "--dependency=afterok:<evaluate>",
        "--dependency=afterok:<soup>",
    ]
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
        monkeypatch.setattr(slurm, "queue", lambda root: list(queue))
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
    monkeypatch.setattr(submit, "is_prepared", lambda cfg, trained: True)
    return functools.partial(load, ["sweep.search=pico.yaml"])


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


def test_an_array_beyond_the_clusters_limit_is_refused(here, monkeypatch):
    cluster = Cluster(monkeypatch, size=3)
    submit.run(Experiment(here()))
    assert cluster.submitted[0][:2] == ("sweep", "0-2")
    cluster = Cluster(monkeypatch, size=2)
    with pytest.raises(ValueError, match=r"ingredient 2 is beyond this cluster's MaxArraySize=2.*sweep\.count=2"):
        submit.run(Experiment(here()))
    assert cluster.submitted == []


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

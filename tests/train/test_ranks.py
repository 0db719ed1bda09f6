"""Several ranks, or a batch in parts, train as one process does; what asks a run to stop, and what that leaves."""

import functools
import itertools
import json
import os
import shutil
import signal

import pytest
import torch
from pico import arguments
from ranks import codes, fork, train_on
from safetensors.torch import load_file

from modelsoups.config.compose import load
from modelsoups.data.crops import CropStore
from modelsoups.disk import lock, manifests, storage
from modelsoups.experiment.experiment import Experiment
from modelsoups.stages import finetune, heads, sweep
from modelsoups.tasks import image_targets
from modelsoups.train import ranks as ranks_module
from modelsoups.train import resume
from modelsoups.train.optimizers import sharpened
from modelsoups.train.ranks import STOPPED, Ranks, joined
from modelsoups.train.trainer import Trainer

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def begun(tmp_path_factory, data):
    """A run folder with its initial models and draw; the recipe has mixup, whose pairs ranks must not break."""
    home = tmp_path_factory.mktemp("begun")
    args = [*arguments(home, data), f"runs={home / 'run'}", "ingredient=0", "recipe.mixup=0.5", "recipe.epochs=2"]
    cfg = load(args)
    heads.run(Experiment(cfg))
    sweep.run(Experiment(cfg))
    return args, home / "run"


@pytest.fixture
def make(begun, tmp_path):
    """A configuration with a run folder of its own."""

    def copy(name, *more):
        shutil.copytree(begun[1], tmp_path / name)
        return load([*begun[0], f"runs={tmp_path / name}", *more])

    return copy


def metrics(cfg):
    lines = (cfg.run.ingredient(0) / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "timing"} for line in lines]


def weights(cfg):
    return (cfg.run.ingredient(0) / "model.safetensors").read_bytes()


def alike(cfg, reference, tolerance=TOLERANCE):
    """The same steps, losses within the tolerance, and weights that differ by rounding alone."""
    rows, others = metrics(cfg), metrics(reference)
    assert [r["step"] for r in rows] == [r["step"] for r in others] == list(range(1, 11))
    assert max(abs(a["loss"] - b["loss"]) for a, b in zip(rows, others, strict=True)) < tolerance
    a, b = (load_file(c.run.ingredient(0) / "model.safetensors") for c in (cfg, reference))
    return max(float((a[k] - b[k]).abs().max()) for k in a) < 1e-3


@pytest.fixture(scope="module")
def one(begun, tmp_path_factory):
    """The run of one process."""
    home = tmp_path_factory.mktemp("one")
    shutil.copytree(begun[1], home / "run")
    cfg = load([*begun[0], f"runs={home / 'run'}"])
    finetune.run(Experiment(cfg))
    return cfg


def test_four_ranks_train_as_one_process_does(make, one):
    cfg = make("four")
    assert train_on(cfg, 4) == [0] * 4
    assert alike(cfg, one)
    assert sorted(p.name for p in cfg.run.ingredient(0).iterdir()) == sorted(
        p.name for p in one.run.ingredient(0).iterdir()
    )
    facts = manifests.manifest_of(cfg.run.ingredient(0))
    assert (facts["layouts"], facts["steps"], facts["images"]) == (["4x1"], 10, 640)


def test_a_batch_in_parts_trains_as_a_whole_one_does(make, one):
    cfg = make("parts", "finetune.at_once=16")
    finetune.run(Experiment(cfg))
    assert alike(cfg, one)
    assert manifests.manifest_of(cfg.run.ingredient(0))["layouts"] == ["1x4"]
    both = make("both", "finetune.at_once=16")
    assert train_on(both, 2) == [0] * 2
    assert alike(both, one)
    assert manifests.manifest_of(both.run.ingredient(0))["layouts"] == ["2x2"]


def stopping_at(step, by):
    """Ask to stop from within a step."""
    update = Trainer.update

    def counted(self, *batch):
        if self.step == step and self.ranks.rank == self.ranks.world - 1:
            by()
        return update(self, *batch)

    return counted


def term():
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_stopped_run_saves_itself_and_ends_the_same_to_the_bit(make, one, monkeypatch, tmp_path, capsys):
    """SIGTERM, then the batch script's file; each between two checkpoints."""
    cfg, file = make("stopped"), tmp_path / "stop"
    monkeypatch.setenv("MODELSOUPS_STOP", str(file))
    monkeypatch.setattr(ranks_module, "LOOK", 0.0)
    monkeypatch.setenv("MODELSOUPS_SAVED", str(tmp_path / "saved"))
    for step, by in ((2, term), (6, file.touch)):
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "update", stopping_at(step, by))
            with pytest.raises(SystemExit) as ended:
                finetune.run(Experiment(cfg))
        assert ended.value.code == STOPPED
        assert f"stopped on request, saved a checkpoint at step {step + 1} of 10" in capsys.readouterr().out
        left = sorted(p.name for p in cfg.run.ingredient(0).iterdir())
        assert left == ["checkpoint.prev.pt", "checkpoint.pt", "metrics.jsonl", "recipe.json"]
    file.unlink()
    assert (tmp_path / "saved").exists()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finetune.run(Experiment(cfg))
    assert not (tmp_path / "saved").exists()  # or the batch script would start a finished run again
    assert weights(cfg) == weights(one)
    assert metrics(cfg) == metrics(one)
    assert "bit-identical" not in capsys.readouterr().out


def test_a_soft_stop_is_no_failure_for_torchrun_where_a_batch_script_looks_for_the_checkpoint(monkeypatch):
    monkeypatch.delenv("MODELSOUPS_SAVED", raising=False)
    assert Ranks(world=2).stopped == STOPPED
    monkeypatch.setenv("MODELSOUPS_SAVED", "saved")
    assert (Ranks(world=2).stopped, Ranks().stopped) == (0, STOPPED)


def test_the_file_that_asks_for_a_stop_is_looked_for_once_a_second(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(ranks_module.time, "monotonic", lambda: now[0])
    asked = ranks_module.Asked(str(tmp_path / "stop"))
    assert not asked.is_set()
    (tmp_path / "stop").touch()
    assert not asked.is_set()
    now[0] += 1
    assert asked.is_set()


def every_file(cfg):
    return {path.name: path.read_bytes() for path in cfg.run.ingredient(0).glob("*.safetensors")}


def test_when_one_rank_is_asked_to_stop_all_save_and_resume_to_the_bit(make, monkeypatch, capfd):
    """Four ranks, whose gradients sum in an order that matters; with SAM's two passes a step, and averages."""
    straight, cfg, single = make("straight"), make("stopped"), make("single")
    for each in (straight, cfg, single):
        lines = storage.read_jsonl(each.run.draw)
        changes = {"sam": 0.05, "ema": [0.9], "swa": [0.0]}
        storage.write_jsonl(each.run.draw, [line | {"recipe": line["recipe"] | changes} for line in lines])
    assert train_on(straight, 4) == [0] * 4
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", stopping_at(4, term))
        assert train_on(cfg, 4) == [STOPPED] * 4
    assert train_on(cfg, 4) == [0] * 4
    assert every_file(cfg) == every_file(straight)
    assert sorted(every_file(cfg)) == ["ema-0.9.safetensors", "model.safetensors", "swa-0.safetensors"]
    assert metrics(cfg) == metrics(straight)
    assert "bit-identical" not in capfd.readouterr().out
    finetune.run(Experiment(single))
    assert alike(straight, single, 10 * TOLERANCE)  # SAM's ascent divides by a norm: 1.2e-5 on some processors


def test_another_number_of_ranks_resumes_with_a_warning(make, one, monkeypatch, capfd):
    cfg = make("changed")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", stopping_at(4, term))
        assert train_on(cfg, 2) == [STOPPED, STOPPED]
    finetune.run(Experiment(cfg))
    assert alike(cfg, one)
    said = capfd.readouterr().out
    assert "resumes with 1x1 (processes x micro-batches) instead of 2x1; the result will not be bit-identical" in said
    assert manifests.manifest_of(cfg.run.ingredient(0))["layouts"] == ["2x1", "1x1"]


def test_ranks_agree_that_a_run_diverged(make, monkeypatch, tmp_path):
    cfg, saved = make("diverged"), tmp_path / "saved"
    monkeypatch.setenv("MODELSOUPS_SAVED", str(saved))
    losses, softmax = itertools.count(), image_targets.LOSSES["softmax"]  # the first loss is that of chance

    def diverging(*tensors):
        bad = next(losses) == 3 and os.environ["RANK"] == "1"
        return softmax(*tensors) * (float("nan") if bad else 1.0)

    monkeypatch.setitem(image_targets.LOSSES, "softmax", diverging)
    assert train_on(cfg, 2) == [1, 1]
    assert json.loads((cfg.run.ingredient(0) / "failed.json").read_text())["reason"] == "the loss is nan at step 3"
    assert not saved.exists()  # or the batch script would try again


def test_a_batch_that_does_not_divide_over_the_ranks_is_refused(make):
    cfg = make("three")
    with pytest.raises(ValueError, match=r"recipe\.batch_size=64 cannot be split over 3 ranks"):
        Experiment(cfg).draw.recipes()[0].accumulation(3)
    assert train_on(cfg, 3) == [1, 1, 1]
    assert not (cfg.run.ingredient(0) / "metrics.jsonl").exists()


def test_the_checkpoint_before_is_used_when_the_newest_is_damaged(make, one, monkeypatch, capsys):
    cfg = make("damaged")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", stopping_at(6, term))
        with pytest.raises(SystemExit):
            finetune.run(Experiment(cfg))
    path = cfg.run.ingredient(0) / "checkpoint.pt"
    content = path.read_bytes()
    path.write_bytes(content[:300_000] + bytes([content[300_000] ^ 1]) + content[300_001:])
    assert resume.newest(path.parent) == ("checkpoint.prev.pt", ["checkpoint.pt"])
    finetune.run(Experiment(cfg))
    assert "checkpoint.pt is damaged; continuing from checkpoint.prev.pt" in capsys.readouterr().out
    assert weights(cfg) == weights(one)
    assert metrics(cfg) == metrics(one)


def test_a_second_process_on_one_folder_is_refused_and_disturbs_nothing(make, one, monkeypatch):
    cfg = make("two")

    def second():
        with pytest.raises(lock.Held, match=r"000 is in use: process \d+ on"):
            finetune.run(Experiment(cfg))

    monkeypatch.setattr(Trainer, "update", stopping_at(3, lambda: statuses.extend(codes([fork(second)]))))
    statuses = []
    finetune.run(Experiment(cfg))
    assert statuses == [0]
    assert weights(cfg) == weights(one)
    assert metrics(cfg) == metrics(one)


def test_a_process_that_was_taken_over_writes_nothing_more(make, monkeypatch):
    cfg = make("taken")
    folder = cfg.run.ingredient(0)
    take = functools.partial((folder / "lock.2").write_text, "{}")
    monkeypatch.setattr(Trainer, "update", stopping_at(3, take))
    with pytest.raises(lock.Held, match="has been taken over"):
        finetune.run(Experiment(cfg))
    assert len(metrics(cfg)) == 3
    assert not (folder / "model.safetensors").exists()


@pytest.mark.parametrize(("batch_size", "in_memory"), [(7, 2**30), (40, 0), (96, 2**30)])
def test_evaluation_sees_every_image_once_whatever_the_batches(make, one, monkeypatch, batch_size, in_memory):
    """A model is evaluated by one process, however many work side by side: no rank pads or drops the last batch."""
    store = CropStore(one.run.root / "pixels", small=in_memory)
    monkeypatch.setattr(Experiment, "crops", property(lambda self: store))
    state = load_file(one.run.ingredient(0) / "model.safetensors")
    whole = Experiment(one).logits.forward("test", state)
    assert len(whole) == len(Experiment(one).sets["test"]) == 96
    cfg = make("batches", f"evaluate.batch_size={batch_size}")
    assert torch.allclose(Experiment(cfg).logits.forward("test", state), whole, atol=1e-4)


def test_ranks_train_one_thread_each(make):
    cfg = make("threads", "finetune.threads=1")

    def act():
        torch.set_num_threads(2)
        finetune.run(Experiment(cfg))
        assert torch.get_num_threads() == 1

    assert train_on(cfg, 2, act) == [0, 0]


def test_sam_perturbs_by_the_whole_gradient_or_by_each_ranks_own():
    """loss_r = (w x_r + b - y_r)^2 / 2 of two parameters on two ranks: the step is the mean of the ranks' gradients."""
    points = [(1.0, 2.0), (3.0, -1.0)]

    def gradient(w, b, x, y):
        return torch.tensor([(w * x + b - y) * x, w * x + b - y], dtype=torch.float64)

    def mean(gradients):
        return sum(gradients) / len(gradients)

    start, rho = torch.tensor([0.5, -0.25], dtype=torch.float64), 0.1
    own = [gradient(*start, *p) for p in points]
    expected = {
        summed: mean([gradient(*(start + rho * g / g.norm()), *p) for g, p in zip(up, points, strict=True)])
        for summed, up in ((True, [mean(own)] * 2), (False, own))
    }
    assert not torch.allclose(expected[True], expected[False])

    def act():
        with joined() as ranks:
            model = torch.nn.Linear(1, 1).double()
            model.weight.data.fill_(0.5)
            model.bias.data.fill_(-0.25)
            network = ranks.wrap(model, torch.zeros(1, 1, dtype=torch.float64))
            x, y = (torch.tensor([[v]], dtype=torch.float64) for v in points[ranks.rank])
            for summed in (True, False):
                model.zero_grad()
                with ranks.summing(network, last=summed):
                    ((network(x) - y) ** 2 / 2).sum().backward()
                with sharpened(model.parameters(), rho):
                    ((network(x) - y) ** 2 / 2).sum().backward()
                found = torch.cat([model.weight.grad.flatten(), model.bias.grad])
                assert torch.allclose(found, expected[summed], atol=1e-12), (found, expected[summed])

    assert train_on(None, 2, act) == [0, 0]

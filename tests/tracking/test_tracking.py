"""W&B's files hold what ours do, whatever happened to the follower; and nothing fails because of W&B."""

import json
import os
import subprocess
import sys
from dataclasses import asdict

import pytest
import wandb_log
import yaml
from pico import arguments, modelsoups

from modelsoups import tracking
from modelsoups.cli import commands, pipeline
from modelsoups.config.compose import load
from modelsoups.disk import manifests, storage
from modelsoups.disk.paths import shipped
from modelsoups.experiment.draw import load_search
from modelsoups.experiment.experiment import Experiment
from modelsoups.recipes import search
from modelsoups.tracking.follower import Follower

wandb = pytest.importorskip("wandb")
RECIPE = {"lr": 1e-3, "weight_decay": 0.05, "epochs": 2, "aug": "rand-m5-n1", "ema": [], "seed": 2**62 + 1}


@pytest.fixture
def cfg(tmp_path):
    return load([f"runs={tmp_path / 'run'}", f"results={tmp_path / 'results'}", "wandb=offline", "name=a.b_c+d-e"])


def follower(cfg, mode="offline"):
    cfg.run.wandb.mkdir(parents=True, exist_ok=True)
    return Follower(json.loads(json.dumps(asdict(cfg))), mode, os.getpid())


def following(cfg):
    return tracking.following(cfg.wandb, cfg.run.wandb, asdict(cfg), ["finetune"])


def row(step, seconds=1.0):
    return {"step": step, "epoch": step / 10, "loss": 1 / (step + 3), "lr": 1e-3, "timing": {"seconds": seconds * step}}


def train(cfg, steps, seconds=1.0, name=0):
    """Metrics up to a step, as a run writes them."""
    folder = cfg.run.ingredient(name)
    storage.write_json(folder / "recipe.json", RECIPE)
    storage.write_jsonl(folder / "metrics.jsonl", [row(step, seconds) for step in range(1, steps + 1)])
    return folder


def flat(mapping, before=""):
    """Nested keys joined with dots, as W&B's records are read."""
    pairs = ((f"{before}{k}", v) for k, v in mapping.items())
    return {k: v for key, x in pairs for k, v in (flat(x, f"{key}.") if isinstance(x, dict) else {key: x}).items()}


def read(cfg, run_id):
    """(history by step, without W&B's other own keys, configuration, summary) of a run, over all of its files."""
    history, config, summary = [], {}, {}
    for path in wandb_log.segments(cfg.run.wandb, run_id):
        for record in wandb_log.records(path):
            if record["type"] == "history":
                found = record["history"]["item"]
                history.append({"step": found["_step"], **{k: v for k, v in found.items() if k[0] != "_"}})
            elif record["type"] == "run":
                config |= record["run"].get("config", {}).get("update", {})
            elif record["type"] == "summary":
                summary |= record["summary"].get("update", {})
    return history, config, summary


def same_as_ours(cfg, run_id, folder):
    history, config, summary = read(cfg, run_id)
    assert history == [flat(line) for line in storage.read_jsonl(folder / "metrics.jsonl")]
    recipe = storage.read_json(folder / "recipe.json")
    assert {key: config[key] for key in recipe} == recipe
    manifest = storage.read_json(folder / "manifest.json")
    for key in ("sha256", "steps", "images", "loss"):
        if key in manifest:
            assert summary[key] == manifest[key], key
    return summary


KILLED = """
import json, os, signal, sys
from modelsoups.tracking.follower import Follower
follower = Follower(json.loads(sys.argv[1]), "offline", os.getpid())
follower.look()
print("logged", flush=True)
sys.stdin.readline()
follower.look()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_an_interrupted_ingredient_has_every_step_and_ends_as_ours_does(cfg):
    """A follower killed without warning, a run resumed with other timings, a stop, the end."""
    folder = train(cfg, 7)
    cfg.run.wandb.mkdir(parents=True)
    command = [sys.executable, "-c", KILLED, json.dumps(asdict(cfg), default=str)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout.readline() == "logged\n"
        train(cfg, 9)  # 8 and 9 are logged at the second look, after which the follower is killed
        killed.stdin.write("\n")
    rows = [row(step, 1.0 if step <= 7 else 2.0) for step in range(1, 21)]  # resumed: the rest at another speed
    storage.write_jsonl(folder / "metrics.jsonl", rows[:15])
    second = follower(cfg)
    second.look()
    second.look(last=True)
    run_id = second.followed[folder].run_id
    storage.write_jsonl(folder / "metrics.jsonl", rows)
    facts = {"sha256": "ab", "steps": 20, "loss": 1 / 23}
    storage.write_json(folder / manifests.MANIFEST, {"inputs": {}, "files": {}, **facts})
    third = follower(cfg)
    third.look(last=True)
    history, _, summary = read(cfg, run_id)
    logged = [(found["step"], found["loss"]) for found in history]
    assert sorted(set(logged)) == [(found["step"], found["loss"]) for found in rows]
    assert len(logged) <= len(rows) + 9  # what the killed follower had logged, perhaps twice
    assert logged[-5:] == [(found["step"], found["loss"]) for found in rows[-5:]]
    assert {key: summary[key] for key in facts} == facts
    count = len(wandb_log.segments(cfg.run.wandb, run_id))
    assert count == 3
    follower(cfg).look(last=True)  # all is logged: nothing more is written
    assert len(wandb_log.segments(cfg.run.wandb, run_id)) == count


def test_the_last_step_is_remembered_once_w_and_b_has_closed_the_run(cfg):
    folder = train(cfg, 3)
    one = follower(cfg)
    one.look()
    assert (one.followed[folder].step, follower(cfg).record("000", RECIPE).step) == (3, -1)
    one.look(last=True)
    assert follower(cfg).record("000", RECIPE).step == 3


def test_a_run_that_another_process_logs_is_left_alone_and_other_folders_have_other_ids(cfg, tmp_path):
    folder = train(cfg, 3)
    storage.write_json(folder / manifests.MANIFEST, {"inputs": {}, "files": {}, "sha256": "ab"})
    one, two = follower(cfg), follower(cfg)
    run_id = one.record("000", RECIPE).id
    assert two.record("000", RECIPE).id == run_id
    with two.record("000", RECIPE).lock() as free:
        assert free
        one.look(last=True)
        assert wandb_log.segments(cfg.run.wandb, run_id) == []
    one.look(last=True)
    same_as_ours(cfg, run_id, folder)
    other = load([f"runs={tmp_path / 'other'}", "wandb=offline", "name=a.b_c+d-e"])
    assert follower(other).record("000", RECIPE).id != run_id


def test_what_a_text_run_was_trained_on_is_logged_in_its_own_unit(cfg):
    folder = train(cfg, 3)
    storage.write_json(folder / manifests.MANIFEST, {"inputs": {}, "files": {}, "images": 24, "unit": "examples"})
    one = follower(cfg)
    one.look(last=True)
    _, _, summary = read(cfg, one.followed[folder].run_id)
    assert summary["examples"] == 24
    assert not {"images", "unit"} & set(summary)


def test_a_diverged_ingredient_is_a_failed_run_with_its_reason(cfg):
    folder = train(cfg, 3)
    reason = "the loss is nan at step 4 <b>&_$\\%"
    storage.write_json(folder / "failed.json", {"reason": reason, "step": 4, "loss": "nan"})
    one = follower(cfg)
    one.look(last=True)
    history, _, summary = read(cfg, one.followed[folder].run_id)
    assert len(history) == 3
    assert summary["failed"] == reason


def test_secrets_of_the_cluster_and_absolute_paths_are_not_logged(tmp_path):
    given = ["wandb=offline", "cluster.setup=['export TOKEN=SECRET1']", "cluster.account=SECRET2"]
    folders = [f"runs={tmp_path / 'run'}", f"results={tmp_path / 'results'}", f"data.root={tmp_path / 'data'}"]
    cfg = load([*given, *folders, f"model.tag={tmp_path / 'weights.pt'}"])
    folder = train(cfg, 3)
    storage.write_json(folder / manifests.MANIFEST, {"inputs": {}, "files": {}, "images": 24})
    one = follower(cfg)
    one.look(last=True)
    (path,) = wandb_log.segments(cfg.run.wandb, one.followed[folder].run_id)
    content = path.read_bytes()
    assert b"weight_decay" in content
    for private in ("SECRET", str(tmp_path), sys.executable):
        assert private.encode() not in content


# ---- nothing fails because of W&B ----


def test_a_folder_that_cannot_be_written_costs_one_line(cfg, capfd):
    cfg.run.root.mkdir(parents=True)
    cfg.run.wandb.write_text("a file where the folder should be")
    with following(cfg):
        done = True
    assert done
    err = capfd.readouterr().err
    assert err.startswith("modelsoups: W&B: not logging, since")
    assert err.count("\n") == 1


@pytest.fixture
def small_disk(cfg):
    """A disk for W&B's files that is full."""
    cfg.run.wandb.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(cfg.run.wandb)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    yield cfg.run.wandb
    wandb.teardown()  # it holds files open
    subprocess.run(["umount", "--lazy", str(cfg.run.wandb)], check=True)


def test_a_full_disk_under_the_follower_costs_nothing_and_the_next_command_makes_up_for_it(cfg, small_disk, capfd):
    folder = train(cfg, 2000)
    storage.write_json(folder / manifests.MANIFEST, {"inputs": {}, "files": {}, "sha256": "ab"})
    before = {p: p.read_bytes() for p in folder.iterdir()}
    with following(cfg):
        pass
    assert "the command itself is complete" in capfd.readouterr().err
    assert {p: p.read_bytes() for p in folder.iterdir()} == before
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    one = follower(cfg)
    one.look(last=True)
    history, _, summary = read(cfg, one.record("000", RECIPE).id)
    assert {found["step"] for found in history} == set(range(1, 2001))
    assert summary["sha256"] == "ab"


def test_without_an_answer_of_the_server_the_run_is_logged_offline(cfg, capfd, monkeypatch):
    wandb.teardown()  # it keeps the settings that it began with
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr("modelsoups.tracking.follower.INIT", 1.0)
    folder = train(cfg, 3)
    storage.write_json(folder / manifests.MANIFEST, {"inputs": {}, "files": {}, "sha256": "ab"})
    one = follower(cfg, "auto")
    one.look(last=True)
    assert "the server did not accept the run" in capfd.readouterr().out
    assert one.mode == "offline"
    same_as_ours(cfg, one.followed[folder].run_id, folder)
    wandb.teardown()


def test_a_follower_that_hangs_is_left_behind(cfg, capfd, monkeypatch):
    monkeypatch.setattr(tracking, "WAIT", {"offline": 0.2, "online": 0.2})
    monkeypatch.setattr(tracking.subprocess, "Popen", lambda _, **options: popen(["sleep", "60"], **options))
    with following(cfg):
        pass
    assert "not finished after 0 s" in capfd.readouterr().err


popen = subprocess.Popen


def test_without_wandb_a_wish_for_it_is_answered_in_one_line(cfg, capsys, monkeypatch):
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    with following(cfg):
        pass
    assert "not installed (pip install modelsoups[wandb])" in capsys.readouterr().err
    assert not cfg.run.wandb.exists()


def test_disabled_starts_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking.subprocess, "Popen", lambda *a, **k: pytest.fail("a process was started"))
    with following(load([f"runs={tmp_path}", "wandb=disabled"])):
        pass


def test_a_mistyped_name_leaves_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tracking.subprocess, "Popen", lambda *a, **k: pytest.fail("a process was started"))
    cfg = load([f"runs={tmp_path / 'typo'}", "name=typo", "wandb=offline"])
    with pytest.raises(SystemExit):
        pipeline.run_stages(commands.modules_of(["report"]), cfg)
    assert "typo/soups is not complete" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# ---- W&B's own environment variables ----


class Started:
    """Stands in for the follower's process, and records the mode that it was given."""

    def __init__(self, command, **options):
        self.stdin, self.text = self, ""
        Started.last = self

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def close(self):
        pass

    def wait(self, seconds=None):
        return 0


@pytest.mark.parametrize(("said", "mode"), [("dryrun", "offline"), ("run", "online"), ("offline", "offline")])
def test_wandb_mode_has_the_meaning_that_w_and_b_gives_it(cfg, monkeypatch, said, mode):
    monkeypatch.setenv("WANDB_MODE", said)
    monkeypatch.setattr(tracking.subprocess, "Popen", Started)
    with tracking.following("auto", cfg.run.wandb, asdict(cfg), ["finetune"]):
        pass
    assert json.loads(Started.last.text)["mode"] == mode


def test_project_and_group_of_the_environment_are_used_where_no_key_is_set(monkeypatch):
    for name in ("WANDB_PROJECT", "WANDB_RUN_GROUP"):
        monkeypatch.delenv(name, raising=False)
    assert tracking.project({"project": None}) == "modelsoups"
    assert tracking.group({"name": "sweep"}) == "sweep"
    monkeypatch.setenv("WANDB_PROJECT", "team-clip")
    monkeypatch.setenv("WANDB_RUN_GROUP", "march")
    assert tracking.project({"project": None}) == "team-clip"
    assert tracking.project({"project": "mine"}) == "mine"
    assert tracking.group({"name": "sweep"}) == "march"


def test_a_project_name_that_w_and_b_refuses_is_named_in_one_line(cfg, capsys, monkeypatch):
    monkeypatch.setattr(tracking.subprocess, "Popen", lambda *a, **k: pytest.fail("a process was started"))
    cfg.track.project = "a/b c"
    with following(cfg):
        pass
    message = capsys.readouterr().err
    assert "no project named 'a/b c'; nothing is logged; set track.project or WANDB_PROJECT" in message
    assert message.count("\n") == 1


# ---- dashboard and sweep ----


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # wandb-workspaces' own
def test_the_dashboard_is_a_valid_workspace_whose_keys_are_logged(cfg):
    pytest.importorskip("wandb_workspaces")
    from modelsoups.cli import dashboard

    text = dashboard.workspace(Experiment(cfg), "me")._to_model().model_dump_json(by_alias=True)
    for kind in ("Scatter Plot", "Parallel Coordinates Plot", "Run History Line Plot", "Media Browser"):
        assert kind in text, kind
    keys = [f"accuracy/{cfg.data.holdout}", "accuracy/mean of shifts", "greedy/best", "figures/figure_1", "table_3"]
    assert all(key in text for key in [*keys, *dashboard.DRAWN])
    assert '"finished"' in text  # it opens on runs that have ended, those of this sweep
    assert f'"{cfg.name}"' in text
    with pytest.raises(ValueError, match="wandb leet"):
        dashboard.run(Experiment(cfg))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_dashboard_of_a_text_run_names_its_score_and_its_examples():
    pytest.importorskip("wandb_workspaces")
    from modelsoups.cli import dashboard

    experiment = Experiment(load(["experiment=glue", "data=glue_cola"]))
    text = dashboard.workspace(experiment, "me")._to_model().model_dump_json(by_alias=True)
    for words in ("Examples per second", "timing.examples_per_second", "Matthews correlation: hold-out, and mean"):
        assert words in text, words
    assert "Greedy soup: Matthews correlation times the number of hold-out examples, of each candidate" in text
    assert "mages" not in text


def test_the_sweep_of_w_and_b_deals_out_our_draw_and_its_command_runs(monkeypatch):
    from wandb.sdk.launch.sweeps import utils

    sweep = yaml.safe_load((shipped("sweeps") / "wandb_random.yaml").read_text())
    assert sweep["parameters"]["ingredient"]["values"] == list(range(search.size(load_search("imagenet_random"))))
    given = {"type": "run", "args": {"ingredient": {"value": 7}}}  # as the agent gets it from the server
    words = utils.create_sweep_command_args(given)["args_no_hyphens"]
    command = [w for part in sweep["command"] for w in (words if part == "${args_no_hyphens}" else [part])]
    assert command == ["${program}", "finetune", "experiment=imagenet", "ingredient=7"]
    ran = []
    monkeypatch.setattr(pipeline, "run_stages", lambda stages, cfg: ran.append(([*stages], cfg.ingredient, cfg.name)))
    commands.main(command[1:])
    assert ran == [(["finetune"], 7, "imagenet")]


def test_a_run_that_an_agent_of_w_and_b_started_keeps_the_agents_id(cfg, monkeypatch):
    folder = train(cfg, 1)
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    monkeypatch.setenv("WANDB_RUN_ID", "theirs")
    for _ in range(2):  # the second time, evaluation: no agent
        one = follower(cfg)
        one.look()
        assert one.followed[folder].run_id == "theirs"
        monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)


def test_an_id_that_is_not_yet_free_is_tried_again(cfg, monkeypatch):
    tried = []

    def init(**options):
        tried.append(options["id"])
        if len(tried) < 3:
            raise RuntimeError("run ID mine is in use")
        return "a run"

    monkeypatch.setattr("wandb.init", init)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert follower(cfg).begin("mine", "name", "finetune", {}) == "a run"
    assert tried == ["mine"] * 3


# ---- a whole pipeline ----


def test_a_pipeline_reads_back_as_our_files_have_it(data, tmp_path):
    done = modelsoups(tmp_path, *arguments(tmp_path, data), "wandb=offline", "track.artifacts=true")
    assert done.returncode == 0, done.stderr
    assert "W&B" not in done.stderr
    cfg = load([*arguments(tmp_path, data), f"runs={tmp_path / 'runs/miniature'}"])
    lines = storage.read_jsonl(tmp_path / "results/miniature/results.jsonl")
    one = follower(cfg)
    for folder in sorted(cfg.run.ingredients.iterdir()):
        summary = same_as_ours(cfg, one.record(folder.name, storage.read_json(folder / "recipe.json")).id, folder)
        mine = {f"accuracy/{x['dataset']}": x["accuracy"] for x in lines if x.get("row") == folder.name}
        assert len(mine) > 6
        assert {key: summary[key] for key in mine} == mine
    (soups,) = [p for p in cfg.run.wandb.glob("wandb/off*/*.wandb") if len(wandb_log.history(p)) and "greedy/kept" in
                wandb_log.history(p)[0]]  # fmt: skip
    newest = max(p.name.split("-")[2] for p in cfg.run.wandb.glob("wandb/offline-run-*"))
    assert soups.parent.name.split("-")[2] == newest  # `wandb leet` opens on it
    history, _, summary = read(cfg, soups.stem.removeprefix("run-"))
    trace = storage.read_json(cfg.run.soup("greedy"))["trace"]
    assert history[: len(trace)] == [
        {"step": i, **{f"greedy/{k}": v for k, v in step.items()}} for i, step in enumerate(trace)
    ]
    assert "table_3" in json.dumps(history[-1])
    for line in lines:
        if line.get("row") == "greedy" and "accuracy" in line:
            assert summary[f"greedy/{line['dataset']}"] == line["accuracy"]

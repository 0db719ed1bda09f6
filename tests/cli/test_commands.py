"""The command line as a user meets it."""

import os
import signal
import subprocess
import sys

import pytest
import torch

from hydra_plugins.modelsoups_launcher.local import SideBySideLauncher
from modelsoups.cli import commands, pipeline
from modelsoups.config.compose import load


def modelsoups(*args, cwd=None):
    command = [sys.executable, "-m", "modelsoups", *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120)


def test_help_lists_the_stages_in_order_with_one_line_each():
    out = modelsoups("--help").stdout
    positions = [out.index(f"\n  {stage} ") for stage in commands.STAGES]
    assert positions == sorted(positions)
    assert list(commands.STAGES) == ["prepare", "heads", "sweep", "finetune", "evaluate", "soup", "report", "analyse"]


@pytest.mark.parametrize("arguments", [["-h"], ["report", "--list"], ["finetune", "-h"], ["mix", "-h"], ["nope"]])
@pytest.mark.parametrize("buffered", [{}, {"PYTHONUNBUFFERED": "1"}])
def test_a_reader_that_has_enough_ends_the_command_quietly(arguments, buffered):
    """As in `modelsoups -h | head -1`; the error of "nope" goes to another stream."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "modelsoups", *arguments]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, env={**os.environ, **buffered})
    os.close(write)
    if arguments == ["nope"]:
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    else:
        assert done.returncode == 128 + signal.SIGPIPE or "mix" in arguments  # argparse ignores that it cannot write
        assert done.stderr == ""


def test_code_of_the_working_folder_is_not_run(tmp_path):
    """Its secrets.py would come before Python's own, its hydra_plugins/ would be loaded by Hydra."""
    mark = "open('PWNED', 'w').write(__name__)\n"
    for file in ("secrets.py", "yaml.py", "hydra/__init__.py", "hydra_plugins/evil/__init__.py", "conf/evil.py"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(mark)
    (tmp_path / "conf/config.yaml").write_text("name: theirs\n")
    done = modelsoups("sweep", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "conf",
        "hydra",
        "hydra_plugins",
        "runs",
        "secrets.py",
        "yaml.py",
    ]
    assert (tmp_path / "runs/miniature/draw.jsonl").exists()


def test_an_unknown_stage_is_named_with_the_valid_ones():
    done = modelsoups("finetun")
    assert done.returncode == 2
    assert "unknown stage finetun; did you mean finetune? expected one of prepare, heads" in done.stderr


def test_the_version_is_that_of_the_package():
    assert modelsoups("--version").stdout == "modelsoups 0.2.0\n"


@pytest.mark.parametrize("override", ["+recipe.wd=1", "recipe.lrr=1", "recipe.lr=-1"])
def test_a_bad_key_ends_in_one_line_and_makes_nothing(tmp_path, override):
    done = modelsoups("sweep", override, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("modelsoups: error: ")
    assert done.stderr.count("\n") == 1
    assert "recipe." in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_sweep_writes_the_draw_once_and_refuses_to_change_it(tmp_path):
    first = modelsoups("sweep", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    draw = tmp_path / "runs/miniature/draw.jsonl"
    content = draw.read_bytes()
    assert "complete" in modelsoups("sweep", cwd=tmp_path).stdout
    changed = modelsoups("sweep", "sweep.seed=1", cwd=tmp_path)
    assert changed.returncode == 1
    assert "the recipes of a run are fixed" in changed.stderr
    assert draw.read_bytes() == content


def test_multirun_runs_each_job_and_checks_keys_first(tmp_path):
    done = modelsoups("sweep", "-m", "name=a,b", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/a/draw.jsonl").read_bytes() == (tmp_path / "runs/b/draw.jsonl").read_bytes()
    wrong = modelsoups("finetune", "-m", "ingrediant=range(3)", cwd=tmp_path)
    assert wrong.returncode == 1
    assert "did you mean ingredient" in wrong.stderr


def test_a_multirun_reopens_each_run_by_its_own_overrides(tmp_path):
    for name, count in (("a", 2), ("b", 3)):
        made = modelsoups("sweep", f"name={name}", f"sweep.count={count}", cwd=tmp_path)
        assert made.returncode == 0, made.stderr
    again = modelsoups("sweep", "-m", "name=a,b", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    drawn = [(tmp_path / f"runs/{name}/draw.jsonl").read_text().count("\n") for name in ("a", "b")]
    assert drawn == [2, 3]
    assert "sweep.count=2" in (tmp_path / "runs/a/overrides.json").read_text()
    assert "sweep.count=3" in (tmp_path / "runs/b/overrides.json").read_text()


def test_multirun_side_by_side_runs_each_job_in_a_process_of_its_own_and_names_those_that_fail(tmp_path):
    launch = ["-m", "hydra/launcher=local", "hydra.launcher.at_once=2"]
    done = modelsoups("sweep", *launch, "name=a,b", "sweep.count=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/a/draw.jsonl").read_bytes() == (tmp_path / "runs/b/draw.jsonl").read_bytes()
    failed = modelsoups("sweep", *launch, "name=a,c", "sweep.count=2", "sweep.seed=1", cwd=tmp_path)
    assert failed.returncode == 1
    assert "the recipes of a run are fixed" in failed.stderr
    assert failed.stderr.splitlines()[-1].startswith("modelsoups: error: sweep: 1 of 2 jobs failed: name=a ")
    assert (tmp_path / "runs/c/draw.jsonl").exists()


@pytest.mark.parametrize(("gpus", "devices"), [("4,7", ["4", "7"]), (None, ["none"])])
def test_jobs_side_by_side_have_a_gpu_each_and_share_the_cores(tmp_path, monkeypatch, gpus, devices):
    mine = sorted(os.sched_getaffinity(0))
    program = tmp_path / "python"
    program.write_text(
        f"#!{sys.executable}\nimport os, sys, time\ntime.sleep(0.5)\n"
        "print(os.environ.get('CUDA_VISIBLE_DEVICES', 'none'), *sorted(os.sched_getaffinity(0)),"
        f" file=open('{tmp_path}/' + sys.argv[-1], 'w'))\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(gpus))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(devices) if gpus else 0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if gpus:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    names = [f"job{i}" for i in range(2)]
    launcher = SideBySideLauncher(at_once=None if gpus else 2)
    launcher.launch([[name] for name in names], 0)
    seen = [(tmp_path / name).read_text().split() for name in names]
    assert sorted({gpu for gpu, *_ in seen}) == devices
    shares = [sorted(map(int, cores)) for _, *cores in seen]
    assert sorted(shares) == sorted([mine[0::2], mine[1::2] or mine])


@pytest.mark.parametrize(
    ("stage", "says"),
    [
        ("heads", "run `modelsoups prepare`"),
        ("finetune", "modelsoups sweep"),
        ("evaluate", "modelsoups heads"),
        ("soup", "modelsoups sweep"),
        ("report", "modelsoups soup"),
    ],
)
def test_a_stage_without_its_input_says_which_stage_makes_it(tmp_path, stage, says):
    done = modelsoups(stage, cwd=tmp_path)
    assert done.returncode == 1
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("kind: random\ncount: 2\nparameters: {lr: {gaussian: [0, 1]}}\n", "gaussian"),
        ("kind: random\ncount: 2\nparameters: {learning_rate: {constant: 1}}\n", "learning_rate"),
        ("kind: [\n", "search.yaml line 2: "),
        ("", "kind"),
    ],
)
def test_a_bad_search_file_is_named(tmp_path, content, says):
    (tmp_path / "search.yaml").write_text(content)
    done = modelsoups("sweep", "sweep.search=search.yaml", cwd=tmp_path)
    assert done.returncode == 1
    assert "search.yaml" in done.stderr
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_missing_search_lists_the_shipped_ones(tmp_path):
    done = modelsoups("sweep", "sweep.search=nope", cwd=tmp_path)
    assert "miniature_random" in done.stderr


@pytest.mark.parametrize(("name", "then"), [("mix", "starts again"), ("verify", "continues where it stopped")])
def test_an_interrupted_command_says_what_the_same_command_does(monkeypatch, capsys, name, then):
    """A mix keeps nothing; what an import has written is kept."""

    def interrupt(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"modelsoups.{commands.COMMANDS[name][0]}.main", interrupt)
    with pytest.raises(SystemExit) as ended:
        commands.main([name, "uniform", "a", "-o", "b"])
    assert ended.value.code == 130
    assert capsys.readouterr().err.endswith(f"{name}: interrupted before its end; the same command {then}\n")


@pytest.mark.parametrize(
    ("error", "said"),
    [(None, "after its end; its output is complete"), (ImportError, "before its end; the same command starts again")],
)
def test_a_ctrl_c_whose_exception_is_lost_is_said(monkeypatch, capsys, error, said):
    """Python ignores what a signal raises within `__del__`; an import that is cut off raises another error."""

    class Interrupting:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGINT)

    def end(argv):
        Interrupting()
        if error is not None:
            raise error("cannot load module")

    monkeypatch.setattr(sys, "unraisablehook", lambda found: None)
    monkeypatch.setattr(f"modelsoups.{commands.COMMANDS['mix'][0]}.main", end)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    with pytest.raises(SystemExit) as ended:
        commands.main(["mix", "uniform", "a", "-o", "b"])
    signal.signal(signal.SIGINT, before)
    assert ended.value.code == 130
    assert capsys.readouterr().err.endswith(f"mix: interrupted {said}\n")


def test_a_deleted_working_folder_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(SystemExit) as ended:
        commands.main(["plan"])
    assert ended.value.code == 1
    assert capsys.readouterr().err == "modelsoups: error: the working folder has been deleted; change to another one\n"


def test_the_time_of_one_ingredient_is_not_kept_as_that_of_the_stage(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipeline, "_run", lambda *args: True)
    for more, kept in ((["ingredient=0"], False), ([], True)):
        config = load(["wandb=disabled", *more])
        pipeline.run_stages({"finetune": "stages.finetune"}, config)
        assert config.run.timings.exists() == kept

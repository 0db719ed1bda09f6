"""The scripts for SLURM: their text for three clusters is frozen, and it is valid shell."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelsoups.cluster.scripts import CHAIN, script
from modelsoups.config.compose import load
from modelsoups.disk.paths import shipped

_, HEADS, SWEEP, EVALUATE, *_ = CHAIN
GOLDEN = Path(__file__).parents[1] / "golden"
CLUSTERS = sorted(p.stem for p in (shipped("conf") / "cluster").glob("*.yaml"))
RUN = ["experiment=imagenet", "runs=/shared/runs/golden", "soup.write=[greedy,uniform]", "submit.dry_run=true"]


def texts(cluster):
    cfg = load([*RUN, f"cluster={cluster}", "cluster.python=python"])
    made = {piece.name: script(cfg, piece, [0, 1, 2, 5, *range(7, 72)]) for piece in CHAIN}
    return {name: text.replace(str(Path.cwd()), "/home/user/soups") for name, text in made.items()}


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_the_scripts_of_every_cluster_are_frozen(cluster):
    """After a change that is meant: UPDATE_GOLDEN=1 pytest tests/cluster/test_scripts.py, and review the difference."""
    made = texts(cluster)
    frozen = GOLDEN / f"submit-{cluster}.txt"
    text = "".join(f"### {name}.sbatch\n{made[name]}\n" for name in ("sweep", "soup"))
    if os.environ.get("UPDATE_GOLDEN"):
        frozen.write_text(text)
    assert text == frozen.read_text()


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_the_scripts_of_every_cluster_are_valid_shell(cluster, tmp_path):
    for name, text in texts(cluster).items():
        (tmp_path / f"{name}.sbatch").write_text(text)
    check(*tmp_path.glob("*.sbatch"))


def test_the_templates_and_the_scripts_of_the_tests_are_valid_shell():
    root = Path(__file__).parents[2]
    check(*shipped("slurm").glob("*.sbatch"), *root.glob("tests/slurm/*.sh"), root / ".ci/run")


def check(*scripts):
    assert scripts
    for path in scripts:
        done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), path
    if shutil.which("shellcheck"):
        done = subprocess.run(["shellcheck", "-e", "SC1091", *map(str, scripts)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_overrides_reach_the_jobs_but_not_those_of_submit_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = load(["submit.dry_run=true", "name=x", "soup.write=[greedy,uniform]", "ingredient=3"])
    assert "overrides=(name=x 'soup.write=[greedy,uniform]')\n" in script(cfg, SWEEP, [0])


def sbatch_words(line):
    """The words of an #SBATCH line by the rules of sbatch (_get_argument of its opt.c)."""
    words, word, quote, escaped = [], None, "", False
    for c in line:
        if not (escaped or quote) and c in " \t\v\f\r":
            words, word = (words if word is None else [*words, word]), None
        elif escaped:
            word, escaped = (word or "") + c, False
        elif c == "\\":
            escaped = True
        elif quote:
            word, quote = (word or "") + ("" if c == quote else c), "" if c == quote else quote
        elif c in "'\"":
            quote = c
        elif c == "#":
            break
        else:
            word = (word or "") + c
    assert (quote, escaped) == ("", False), line
    return words if word is None else [*words, word]


def options_of(text):
    lines = text.split("\n")
    last = next(i for i, line in enumerate(lines) if line.strip() and not line.startswith("#"))
    found = [sbatch_words(line.removeprefix("#SBATCH")) for line in lines[:last] if line.startswith("#SBATCH")]
    assert all(len(words) == 1 for words in found)
    return [words[0] for words in found]


def arguments_of(text, folder):
    """What bash hands to Python: the script with a python that prints its arguments."""
    show = folder / "python"
    show.write_text(f"#!{sys.executable}\nimport json, sys\nprint('ARGS', json.dumps(sys.argv[1:]))\n")
    show.chmod(0o755)
    env = {"PATH": os.environ["PATH"], "SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "n", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, cwd=folder, env=env)
    assert done.returncode == 0, done.stderr
    return [json.loads(line[5:]) for line in done.stdout.splitlines() if line.startswith("ARGS ")]


ANY = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
PLAIN = st.text(st.sampled_from("ab'\"\\ #$(`;&|%=été\u2028~*?[]{}<>!"), min_size=1, max_size=12)


@settings(max_examples=20, deadline=None)
@given(st.lists(ANY | PLAIN, min_size=4, max_size=4))
def test_every_value_is_one_word_of_one_line_or_refused(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("script")
    partition, account, mem, override = values
    config = load(["name=x", "cluster.python=./python"])
    cluster = dataclasses.replace(config.cluster, partition=partition, account=account, mem=mem)
    config = dataclasses.replace(config, cluster=cluster, overrides=("name=x", f"data.name={override}"))
    if not all(map(str.isprintable, values)):
        with pytest.raises(ValueError, match="cannot be in a script"):
            script(config, EVALUATE, [])
        return
    text = script(config, EVALUATE, [])
    options = options_of(text)
    assert [f"--partition={partition}", f"--account={account}", f"--mem={mem}"] == [
        next(o for o in options if o.startswith(f"--{key}=")) for key in ("partition", "account", "mem")
    ]
    assert len(options) == len(options_of(script(load(["name=x", "cluster.mem=1G"]), EVALUATE, []))) + 2
    arguments = arguments_of(text, folder)
    assert arguments == [["-m", "modelsoups", "evaluate", "name=x", f"data.name={override}"]]
    assert [path.name for path in folder.iterdir()] == ["python"]


@pytest.mark.parametrize("name", ["a b", "it's", 'a"b', "$(touch PWNED)", "50% off", "back\\slash", "#1", "été"])
def test_a_working_folder_of_any_printable_name_is_one_word(tmp_path, monkeypatch, name):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    options = options_of(script(load(["name=x"]), EVALUATE, []))
    assert f"--chdir={tmp_path / name}" in options
    assert f"--comment={tmp_path / name / 'runs/x'}" in options
    output = f"{tmp_path / name / 'runs/x/slurm'}".replace("%", "%%")
    assert f"--output={output}/evaluate-%j.out" in options


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("cluster.partition='x\ntouch PWNED'", r"partition: 'x\\ntouch PWNED' cannot be in a script"),
        ("cluster.options=['--comment=x\ntouch PWNED']", r"cluster\.options: .* is 3 words"),
        ("cluster.options=['--comment=$(touch PWNED)']", r"cluster\.options: .* is 2 words; write each option as"),
        ("cluster.options=['--comment=\\'x']", r"cluster\.options: .* is not a list of words"),
        ("cluster.prefix='env \\'x'", r"cluster\.prefix: .* is not a list of words"),
        ("data.name='x\ny'", r"override: .* cannot be in a script"),
        ("cluster.setup=['echo a\rb']", r"cluster\.setup\[0\]"),
    ],
)
def test_values_that_would_be_lines_or_words_of_their_own_are_refused(override, says):
    with pytest.raises(ValueError, match=says):
        script(load([override, "name=x"]), SWEEP, [0])


@pytest.mark.parametrize("piece", CHAIN, ids=lambda piece: piece.name)
def test_a_job_that_runs_no_model_asks_for_no_gpu_and_may_have_options_of_its_own(piece):
    given = ["name=x", "cluster.gpus_per_node=4", "cluster.options=['--constraint=a100']"]
    on_gpus = "--gpus-per-node=4" in options_of(script(load(given), piece, [0]))
    assert on_gpus is (piece.name not in ("prepare", "report"))
    assert options_of(script(load(given), piece, [0]))[-1] == "--constraint=a100"
    own = load([*given, "cluster.cpu_options=['--partition=cpu','--mem=8G']"])
    assert options_of(script(own, piece, [0]))[-2:] == (
        ["--requeue", "--constraint=a100"] if on_gpus else ["--partition=cpu", "--mem=8G"]
    )
    with pytest.raises(ValueError, match=r"cluster\.cpu_options: .* is 2 words"):
        script(load(["name=x", "cluster.cpu_options=['-p cpu']"]), CHAIN[0], [])


@pytest.mark.parametrize(
    ("piece", "given", "threads"),
    [
        (SWEEP, ["cluster.gpus_per_node=0", "cluster.cpus_per_node=32"], "32"),
        (HEADS, ["cluster.gpus_per_node=0", "cluster.cpus_per_node=32", "cluster.ranks_per_node=4"], "32"),
        (SWEEP, ["cluster.gpus_per_node=0", "cluster.ranks_per_node=3"], "2"),
        (SWEEP, ["cluster.gpus_per_node=0", "cluster.ranks_per_node=16"], "1"),
        (EVALUATE, ["cluster.gpus_per_node=0"], None),
        (SWEEP, [], None),
    ],
)
def test_without_gpus_the_processes_that_train_share_all_cores(piece, given, threads):
    text = script(load(["name=x", *given]), piece, [0])
    assert re.findall(r"finetune\.threads=(\d+)", text) == ([threads] if threads else [])


def test_threads_that_a_user_has_chosen_stay():
    text = script(load(["name=x", "cluster.gpus_per_node=0", "finetune.threads=1"]), SWEEP, [0])
    assert "overrides=(name=x cluster.gpus_per_node=0 finetune.threads=1)\n" in text


def test_an_option_in_quotes_is_one_word():
    options = options_of(script(load(["cluster.options=[\"--comment='two words'\"]", "name=x"]), EVALUATE, []))
    assert options[-1] == "--comment=two words"

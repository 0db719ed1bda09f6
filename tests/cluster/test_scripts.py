"""The scripts for SLURM: their text for three clusters is frozen, and it is valid shell."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from modelsoups.cluster.scripts import CHAIN, script
from modelsoups.config.compose import load
from modelsoups.disk.paths import shipped

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
    assert "overrides=(name=x 'soup.write=[greedy,uniform]')\n" in script(cfg, CHAIN[1], [0])

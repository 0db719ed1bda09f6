"""What ships: conf and sweeps in the wheel; no host of a registry and no path of a machine in any file."""

import re
import subprocess
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[1]


@pytest.mark.filterwarnings("ignore")
def test_the_wheel_holds_conf_sweeps_and_assets(tmp_path):
    wheel = next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path)))
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = [f"conf/{p.relative_to(ROOT / 'conf')}" for p in (ROOT / "conf").rglob("*.yaml")]
    expected += [f"sweeps/{p.name}" for p in (ROOT / "sweeps").iterdir()]
    expected += [f"slurm/{p.name}" for p in (ROOT / "slurm").iterdir()]
    expected += [f"assets/{p.relative_to(ROOT / 'src/modelsoups/assets')}"
                 for p in (ROOT / "src/modelsoups/assets").rglob("*") if p.is_file()]  # fmt: skip
    assert {f"modelsoups/{name}" for name in expected} <= names


@pytest.mark.filterwarnings("ignore")
def test_the_wheel_is_installed_in_a_new_environment_and_makes_table_3(tmp_path):
    wheel = next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path)))
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel]
    subprocess.run(install, check=True, capture_output=True)
    # The dependencies are those of this environment; a .pth in it, as of an editable install, is not read.
    (site,) = (tmp_path / "venv/lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    command = [tmp_path / "venv/bin/modelsoups", "report", "experiment=released", "wandb=disabled"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert "Greedy soup" in done.stdout
    assert (tmp_path / "results/released/index.html").exists()
    where = [python, "-c", "import modelsoups; print(modelsoups.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, capture_output=True, text=True, env=environment).stdout
    assert str(tmp_path / "venv") in found


def test_no_tracked_text_names_a_registry_host_or_a_path_of_a_machine():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    forbidden = re.compile(
        "|".join(["pypi\\." + "org", "pythonhosted\\." + "org", "/work/" + "main", "\\.library" + "/"])
    )
    for name in tracked:
        path = ROOT / name
        if path.suffix in (".png", ".pdf", ".safetensors", ".npz") or not path.exists():
            continue
        assert not forbidden.search(path.read_text(encoding="utf-8")), name

"""What ships: conf and sweeps in the wheel; no host of a registry and no path of a machine in any file."""

import re
import subprocess
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

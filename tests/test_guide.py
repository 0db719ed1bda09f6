"""The complete example of docs/soup.md and the notebook run as they stand."""

import json
import re
import subprocess
import sys
from pathlib import Path

import torch

from modelsoups import soup

GUIDE = Path(__file__).parents[1] / "docs" / "soup.md"


def test_the_complete_example_of_the_user_guide_runs(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = [b for b in re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL) if "import timm" in b]
    torch.manual_seed(0)
    names: dict[str, object] = {}
    exec(compile(example, str(GUIDE), "exec"), names)
    assert names["data"].seen > 0  # type: ignore[attr-defined]
    assert soup.load("soup.safetensors").keys() == soup.load("a.pt").keys()
    assert "| `a.pt` |" in Path("soup.md").read_text() or "| `b.pt` |" in Path("soup.md").read_text()


def test_the_example_with_hugging_face_models_runs(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    (example,) = [block for block in blocks if "transformers" in block]
    names: dict[str, object] = {}
    exec(compile(example, str(GUIDE), "exec"), names)
    assert names["data"].seen > 0  # type: ignore[attr-defined]
    assert (tmp_path / "soup" / "config.json").read_bytes() == (tmp_path / "run1" / "config.json").read_bytes()


def test_every_function_of_the_library_is_in_the_guide() -> None:
    text = GUIDE.read_text()
    missing = [name for name in soup.__all__ if name not in text]
    assert missing == []


def test_the_notebook_runs(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    cells = json.loads(GUIDE.with_name("soups.ipynb").read_text())["cells"]
    names: dict = {}
    for cell in cells:
        text = "".join(cell["source"])
        if cell["cell_type"] == "code" and text.startswith("!"):  # a command of the terminal
            subprocess.run([sys.executable, "-m", *text[1:].split()], check=True)
        elif cell["cell_type"] == "code":
            assert not cell["outputs"]
            exec(compile(text, "soups.ipynb", "exec"), names)
    shown = capfd.readouterr().out
    assert (tmp_path / "soup.safetensors").exists()
    assert "soup.safetensors" in shown

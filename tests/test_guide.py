"""The complete example of docs/soup.md runs as it stands."""

import re
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


def test_every_function_of_the_library_is_in_the_guide() -> None:
    text = GUIDE.read_text()
    missing = [name for name in soup.__all__ if name not in text]
    assert missing == []

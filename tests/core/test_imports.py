"""core imports torch, numpy, scipy, numba, safetensors, xxhash, the standard library, and nothing of the pipeline."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import modelsoups.core

CORE = Path(modelsoups.core.__file__).parent
ALLOWED = {
    "torch",
    "numpy",
    "scipy",
    "safetensors",
    "numba",
    "llvmlite",
    "xxhash",
} | sys.stdlib_module_names  # llvmlite: numba's
BLOCKED = ("hydra", "omegaconf", "open_clip", "timm", "webdataset", "wandb", "torchvision", "statsmodels")
FILES = sorted(CORE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(CORE)))
def test_every_import_is_allowed(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            names = [node.module or ""]
        else:
            continue
        for name in names:
            assert name.split(".")[0] in ALLOWED or name.startswith("modelsoups.core"), f"{path.name} imports {name}"


def test_core_prints_nothing() -> None:
    calls = [
        f"{path.name}:{node.lineno}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert calls == []


def test_core_imports_with_everything_else_blocked() -> None:
    modules = [".".join(p.relative_to(CORE.parents[1]).with_suffix("").parts) for p in FILES]
    modules = [m.removesuffix(".__init__") for m in modules]
    assert {"modelsoups.core.weights", "modelsoups.core.methods.greedy"} <= set(modules)
    code = f"""
import sys
for name in {BLOCKED!r}:
    sys.modules[name] = None
import importlib
for name in {modules!r}:
    importlib.import_module(name)
loaded = [m for m in sys.modules if m.startswith("modelsoups.") and not m.startswith("modelsoups.core")]
assert not loaded, loaded
"""
    environment = {**os.environ, "PYTHONPATH": str(CORE.parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""

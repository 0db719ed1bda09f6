"""Which room may import which: the contracts of pyproject.toml, and the soup library without the heavy packages."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import modelsoups

PACKAGE = Path(modelsoups.__file__).parent
HEAVY = ("hydra", "omegaconf", "open_clip", "timm", "transformers", "torchvision", "webdataset", "wandb")
LIBRARY = ("soup", "weights", "checkpoints", "stats")


def test_the_contracts_hold():
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=PACKAGE.parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_library_loads_with_the_heavy_packages_blocked():
    files = [path for room in LIBRARY for path in (PACKAGE / room).rglob("*.py")]
    modules = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in files]
    modules = [name.removesuffix(".__init__") for name in modules]
    assert {"modelsoups.weights.state_dicts", "modelsoups.soup.methods.greedy"} <= set(modules)
    code = f"""
import importlib, sys
for name in {HEAVY!r}:
    sys.modules[name] = None
for name in {modules!r}:
    importlib.import_module(name)
"""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_the_library_prints_nothing():
    calls = [
        f"{path.name}:{node.lineno}"
        for room in LIBRARY
        for path in (PACKAGE / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert calls == []

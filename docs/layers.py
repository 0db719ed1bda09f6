"""Draws docs/pictures/layers.svg from the code: the rooms in the order of their layers, and which imports which.

Usage: python docs/layers.py
"""

import ast
import tomllib
from pathlib import Path

import matplotlib
from matplotlib import pyplot as plt
from matplotlib.patches import Arc

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src/modelsoups"
PICTURE = ROOT / "docs/pictures/layers.svg"


def layers() -> list[str]:
    """The rooms, highest first, as the contract of pyproject.toml orders them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return next(c["layers"] for c in contracts if c["type"] == "layers")


def imports(room: str) -> set[str]:
    """The other rooms that a room imports, for typing alone included."""
    found = set()
    for path in (PACKAGE / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("modelsoups."):
                found.add(node.module.split(".")[1])
    return found - {room}


def sentence(room: str) -> str:
    """The docstring of a room."""
    return (ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text())) or "").split("\n")[0]


def draw() -> None:
    matplotlib.rcParams.update({"svg.hashsalt": "layers", "svg.fonttype": "none"})
    rooms = layers()
    figure, panel = plt.subplots(figsize=(11, 0.36 * len(rooms) + 0.4))
    for row, room in enumerate(rooms):
        panel.text(0, -row, room, weight="bold", va="center", size=10)
        panel.text(1.35, -row, sentence(room), va="center", size=9)
        for other in imports(room) & set(rooms):
            depth = rooms.index(other) - row
            centre, width = (-0.15, -row - depth / 2), 0.25 + 0.16 * depth
            panel.add_patch(Arc(centre, width, depth, theta1=90, theta2=270, color="#3b6ea5", alpha=0.35))
    panel.set(xlim=(-2.2, 8.5), ylim=(-len(rooms) + 0.4, 0.6))
    panel.axis("off")
    figure.savefig(PICTURE, metadata={"Date": None}, bbox_inches="tight")


if __name__ == "__main__":
    draw()

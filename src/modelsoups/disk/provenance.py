"""What made a result: versions, commit, command, machine; and a fingerprint of the code behind a cached measurement."""

from __future__ import annotations

import ast
import contextlib
import functools
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from modelsoups.disk.paths import PACKAGE

if TYPE_CHECKING:  # paths and manifests are read without loading torch
    pass
from modelsoups.disk.storage import fingerprint


@functools.cache
def code(*parts: str) -> str:
    """Sixteen hex digits that name what modules or packages of ours do ("evaluate", "core"); comments do not count."""
    root, text = PACKAGE, dict[str, str]()
    for part in parts:
        files = sorted((root / part).rglob("*.py")) or [root / f"{part}.py"]
        text |= {str(f.relative_to(root)): ast.dump(ast.parse(f.read_text(encoding="utf-8"))) for f in files}
    return fingerprint(text)


def provenance() -> dict[str, Any]:
    """What made a result: code version and commit, argv, packages, machine, time."""
    packages = {}
    for name in ("torch", "torchvision", "open_clip_torch", "timm", "webdataset", "hydra-core", "numpy", "pillow"):
        with contextlib.suppress(PackageNotFoundError):
            packages[name] = version(name)
    return {
        "modelsoups": version("modelsoups"),
        "commit": commit(),
        "command": " ".join(["modelsoups", *sys.argv[1:]]),
        "python": platform.python_version(),
        "packages": packages,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def commit() -> str | None:
    """The git commit of the source checkout, with "+" when it has changes; None for an installed package."""
    root = PACKAGE.parents[1]
    if not (root / ".git").exists():
        return None
    git = ["git", "-C", str(root)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        dirty = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if dirty else "")

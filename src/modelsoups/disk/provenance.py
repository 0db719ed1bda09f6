"""Records how a result was made: package versions, git commit, command and machine."""

import ast
import contextlib
import functools
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from modelsoups.disk.paths import PACKAGE
from modelsoups.disk.storage import fingerprint

PRIVATE = ("cluster", "track")  # sections of the configuration with accounts, tokens, entities
# A value in a command that is stored as one text may have spaces, so all of the rest is hidden with it.
PRIVATE_VALUE = re.compile(rf"(\b(?:{'|'.join(PRIVATE)})[./][\w.]+=)(?!\.\.\.(?:\s|$)).*", re.DOTALL)
FOLDERS = re.compile(r"(^|[\s='\"\[,:])(?:/|~/)(?:[^\s/'\",\]]+/)+")  # of an absolute path
PACKAGES = ("torch", "torchvision", "open_clip_torch", "timm", "webdataset", "hydra-core", "numpy", "pillow")


@functools.cache
def code_fingerprint(*parts: str) -> str:
    """Return a hash (16 hex digits) of these modules' code and docstrings, without comments."""
    root, text = PACKAGE, dict[str, str]()
    for part in parts:
        files = sorted((root / part).rglob("*.py")) or [root / f"{part}.py"]
        for file in files:
            text[str(file.relative_to(root))] = ast.dump(ast.parse(file.read_text(encoding="utf-8")))
    return fingerprint(text)


def record() -> dict[str, Any]:
    """Return package versions, git commit, command line, machine and time as a JSON object.

    The command is without folders of absolute paths: the manifests of results are made to be shared.
    """
    packages = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            packages[name] = version(name)
    return {
        "modelsoups": version("modelsoups"),
        "commit": git_commit(),
        "command": public(" ".join(["modelsoups", *map(public_argument, sys.argv[1:])])),
        "python": platform.python_version(),
        "packages": packages,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def public(value: Any) -> Any:
    """Copy JSON values without cluster and W&B settings, and without folders of absolute paths."""
    if isinstance(value, Mapping):
        return {key: public(inner) for key, inner in value.items() if key not in PRIVATE}
    if isinstance(value, str):
        return FOLDERS.sub(r"\1", PRIVATE_VALUE.sub(r"\1...", value))
    if isinstance(value, (list, tuple)):
        return list(map(public, value))
    return value


def public_argument(argument: str) -> str:
    """Return a command-line argument; hide the value of a cluster or W&B setting ("key=...")."""
    key, found, _ = argument.partition("=")
    private = found and key.lstrip("+").replace("/", ".").partition(".")[0] in PRIVATE
    return f"{key}=..." if private else argument


def git_commit() -> str | None:
    """Return the git commit of the source checkout, with "+" if files changed; None without one."""
    root = PACKAGE.parents[1]
    if not (root / ".git").exists():
        return None
    git = functools.partial(subprocess.check_output, cwd=root, text=True, stderr=subprocess.PIPE)
    try:
        head = git(["git", "rev-parse", "HEAD"]).strip()
        changed = git(["git", "status", "--porcelain", "-uno"]).strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changed else "")

"""Registries that anyone can extend: a name of ours, or `module:function` in a file of one's own."""

import importlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def find(known: Mapping[str, Any], name: str, key: str) -> Any:
    """What a key of the configuration names: an entry of `known`, or an object given as module:object.

    The module is looked for in the working folder first. Raises ValueError naming the key, the cause and the choices.
    """
    if name in known:
        return known[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ValueError(f"{key}={name}: expected one of {choices(known)}, or module:function of your own")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise ValueError(f"{key}={name}: no module named {error.name} in {folder} or the installed packages") from error
    except AttributeError as error:
        raise ValueError(f"{key}={name}: {module} has no {attribute}") from error
    except Exception as error:
        raise ValueError(f"{key}={name}: importing {module} failed: {type(error).__name__}: {error}") from error


def choices(known: Iterable[str]) -> str:
    """The names of a registry as messages show them."""
    return ", ".join(known)

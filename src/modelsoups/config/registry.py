"""Finds the object that a key names: a built-in name, or `module:object` in the user's own file."""

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from modelsoups.disk import storage


def find(known: Mapping[str, Any], name: str, key: str) -> Any:
    """Return the object with this name in `known`; otherwise import "module:object" (see `load`).

    An entry of `known` that is a string is imported in the same way. key: the configuration key
    that has this name as its value. Raises ValueError with it and the built-in names if importing
    fails.
    """
    if name in known:
        return load(known[name]) if isinstance(known[name], str) else known[name]
    try:
        return load(name)
    except ValueError as error:
        raise ValueError(f"{key}={error}; built-in names: {', '.join(known)}") from error


def load(name: str, what: str = "module:object") -> Any:
    """Import and return "module:object", or the module itself for "module:".

    The module may be in the current folder. what: the expected format, for the error message.
    Raises ValueError if the name has no colon, or cannot be imported.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon):
        raise ValueError(f"{name}: expected {what}")
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        found = importlib.import_module(module)
        return getattr(found, attribute) if attribute else found
    except SystemExit as error:
        raise ValueError(f"{name} cannot be imported: {module} ends the process (SystemExit {error})") from error
    except (ImportError, AttributeError, SyntaxError) as error:
        raise ValueError(f"{name} cannot be imported: {error}") from error
    finally:
        sys.path.remove(here)
        source = getattr(sys.modules.get(module), "__file__", None)
        if source and Path(source).is_relative_to(here) and here not in sys.path:
            # For what it imports later, or in worker processes; last, to hide no library.
            sys.path.append(here)


def own_code(names: Iterable[str]) -> dict[str, str]:
    """Return for each name of the form "module:object" the sha256 of the module's file."""
    modules = {name: load(name.partition(":")[0] + ":") for name in names if ":" in name}
    return {name: storage.file_sha256(Path(m.__file__)) for name, m in modules.items() if m.__file__}


def function(name: str) -> Callable[..., Any]:
    """Import and return the function "module:function". Raises ValueError if it is not callable."""
    found: Callable[..., Any] = load(name, "module:function")
    if not callable(found):
        raise ValueError(f"{name} is of type {type(found).__name__}; expected a function")
    return found


def result(name: str) -> Any:
    """Call "module:function" without arguments. Raises ValueError as `function` does, and if it ends the process."""
    try:
        return function(name)()
    except SystemExit as error:
        raise ValueError(f"{name} ends the process (SystemExit {error}); it must return a value") from error

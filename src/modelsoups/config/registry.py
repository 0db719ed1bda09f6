"""Extensible registries: a key takes a built-in name, or `module:object` in the user's own file."""

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def find(known: Mapping[str, Any], name: str, key: str) -> Any:
    """Return the object for a key's value: an entry of `known`, or module:object (`module:`: the module).

    An entry of `known` that is a string is itself imported as module:object.
    Raises ValueError with the key, the cause and the choices.
    """
    if name in known:
        return load(known[name]) if isinstance(known[name], str) else known[name]
    try:
        return load(name)
    except ValueError as error:
        raise ValueError(f"{key}={error}; built-in names: {', '.join(known)}") from error


def load(name: str, what: str = "module:object") -> Any:
    """Import and return the object "module:object"; the module may be in the current folder.

    what: the expected format, for the message.

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
            sys.path.append(here)  # what it imports later, or in worker processes; last, to hide no library


def function(name: str) -> Callable[..., Any]:
    """Import and return the function "module:function". Raises ValueError if it is not callable."""
    found: Callable[..., Any] = load(name, "module:function")
    if not callable(found):
        raise ValueError(f"{name} is a {type(found).__name__}, expected a function")
    return found


def result(name: str) -> Any:
    """Call "module:function" without arguments. Raises ValueError as `function` does, and if it ends the process."""
    try:
        return function(name)()
    except SystemExit as error:
        raise ValueError(f"{name} ends the process (SystemExit {error}); it is to return a value") from error

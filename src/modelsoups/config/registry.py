"""Registries that anyone can extend: a name of ours, or `module:object` in a file of one's own."""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def find(known: Mapping[str, Any], name: str, key: str) -> Any:
    """What a key names: an entry of `known`, or module:object. `module:` is the module itself.

    An entry that is a text is imported when it is asked for.

    Raises ValueError naming the key, the cause and the choices.
    """
    if name in known:
        return load(known[name]) if isinstance(known[name], str) else known[name]
    try:
        return load(name)
    except ValueError as error:
        raise ValueError(f"{key}={error}; the names of ours: {', '.join(known)}") from error


def load(name: str, what: str = "module:object") -> Any:
    """The object that "module:object" names; the module may lie in the current folder.

    what: the form that is expected, for the message.

    Raises ValueError if the name has no colon, or cannot be imported.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon):
        raise ValueError(f"{name}: expected {what}")
    sys.path.insert(0, "")
    try:
        found = importlib.import_module(module)
        return getattr(found, attribute) if attribute else found
    except (ImportError, AttributeError, SyntaxError) as error:
        raise ValueError(f"{name} cannot be imported: {error}") from error
    finally:
        sys.path.remove("")


def function(name: str) -> Callable[..., Any]:
    """The function that "module:function" names: see `load`; ValueError for anything else."""
    found: Callable[..., Any] = load(name, "module:function")
    if not callable(found):
        raise ValueError(f"{name} is a {type(found).__name__}, expected a function")
    return found

"""Functions in a user's own files, named as "module:function"."""

import importlib
import sys
from collections.abc import Callable
from typing import Any


def imported(name: str) -> Callable[..., Any]:
    """The function that "module:function" names; the module may lie in the current folder.

    Raises ValueError unless it can be imported and is a function.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ValueError(f"{name}: expected module:function")
    sys.path.insert(0, "")
    try:
        function: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise ValueError(f"{name} cannot be imported: {error}") from error
    finally:
        sys.path.remove("")
    if not callable(function):
        raise ValueError(f"{name} is a {type(function).__name__}, expected a function")
    return function

"""How a configuration key is declared: a dataclass field with its sentence, default and bounds."""

from collections.abc import Sequence
from dataclasses import MISSING, field
from typing import Any


def key(
    sentence: str,
    default: Any = MISSING,
    *,
    at_least: float | None = None,
    choices: Sequence[str] = (),
    own: bool = False,
) -> Any:
    """Return a dataclass field that defines a key; a key without a default is required.

    sentence: explains the key in --help and the docs. at_least: smallest value, unless it is null.
    own: besides the choices, the key accepts module:object in the user's own file.
    """
    about = {"sentence": sentence, "at_least": at_least, "choices": tuple(choices), "own": own}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=about)
    return field(default=default, metadata=about)

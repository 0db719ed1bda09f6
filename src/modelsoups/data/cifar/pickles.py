"""Reads the official files of CIFAR-10 and CIFAR-100, pickles, without running anything that a pickle can name.

The files of https://www.cs.toronto.edu/~kriz/cifar.html are of protocol 2, as Python 2 wrote them: a dictionary
of strings, lists of numbers and names, and one array of bytes. This module is an interpreter of the few
operations in them. It never imports what a file names: an array is recorded as what it was to be made from, and
its bytes are checked before NumPy sees them. Everything else is refused.
"""

import functools
import io
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from modelsoups.data import walk

MOST_BYTES = {"10": 64 * 2**20, "100": 192 * 2**20}  # of a file; official ones have 31 and 155 million
MOST_OPERATIONS = 1_000_000  # official files have about 60,000 and 300,000
NUMPY = {"numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"}  # the names in official files
CONSTANTS = {"NONE": None, "NEWFALSE": False, "NEWTRUE": True}
NUMBERS = {"BININT", "BININT1", "BININT2", "LONG1"}
STRINGS = {"SHORT_BINSTRING", "BINSTRING"}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
MARK = object()


class _Name(str):
    """The name of a class or function that a pickle asks for; it is never looked up."""


class _Made:
    """What a pickle wants to make by calling `name` with `args`, and the state that it is to have."""

    def __init__(self, name: str, args: tuple[Any, ...]) -> None:
        self.name, self.args = name, args
        self.state: tuple[Any, ...] | None = None


def read(path: Path, of: str = "10") -> dict[str, Any]:
    """Return the dictionary in a file; its array is uint8, and strings are Latin-1.

    of: "10" or "100", for CIFAR-10 or CIFAR-100. Raises ValueError, with the file, unless it is a pickle
    with nothing but what official files hold.
    """
    title, most = f"CIFAR-{of}", MOST_BYTES[of]
    content = walk.content(path, f"a file of {title}")
    if len(content) > most:
        size, usual = f"{len(content) / 2**20:,.0f} MiB", {"10": 30, "100": 148}[of]
        raise ValueError(f"{path} has {size}, but a batch of {title} has {usual}; extract the official archive again")
    try:
        found = _Machine().run(content)
        if not isinstance(found, dict) or not all(type(key) is str for key in found):
            raise ValueError("it does not hold a dictionary")
        return {key: _array(value) if isinstance(value, _Made) else value for key, value in found.items()}
    except (ValueError, IndexError, TypeError, OverflowError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        way_out = f"extract cifar-{of}-python.tar.gz of https://www.cs.toronto.edu/~kriz/cifar.html again"
        raise ValueError(f"{path} is not an official file of {title} ({reason}); {way_out}") from error


class _Machine:
    """The stack and the memo of a pickle, and what each allowed operation does with them."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.operations: dict[str, Callable[[Any], None]] = {
            "MARK": lambda _: self.stack.append(MARK),
            "EMPTY_DICT": lambda _: self.stack.append({}),
            "EMPTY_LIST": lambda _: self.stack.append([]),
            "EMPTY_TUPLE": lambda _: self.stack.append(()),
            "TUPLE": lambda _: self.stack.append(tuple(self._to_mark())),
            "APPEND": lambda _: self._append([self.stack.pop()]),
            "APPENDS": lambda _: self._append(self._to_mark()),
            "SETITEM": lambda _: self._set([self.stack.pop() for _ in range(2)][::-1]),
            "SETITEMS": lambda _: self._set(self._to_mark()),
            "GLOBAL": self._name,
            "REDUCE": lambda _: self._call(),
            "BUILD": lambda _: self._build(),
        }
        for kind in ("BINPUT", "LONG_BINPUT"):
            self.operations[kind] = lambda number: self.memo.__setitem__(number, self.stack[-1])
        for kind in ("BINGET", "LONG_BINGET"):
            self.operations[kind] = self._recall
        for kind in NUMBERS | STRINGS:
            self.operations[kind] = self.stack.append
        for kind, constant in CONSTANTS.items():
            self.operations[kind] = functools.partial(self._push, constant)
        for kind, count in TUPLES.items():
            self.operations[kind] = functools.partial(self._tuple, count)

    def run(self, content: bytes) -> Any:
        """Return the object in a pickle; ValueError for any operation that official files lack."""
        if not content.startswith(b"\x80\x02"):
            raise ValueError("it is not a pickle of protocol 2")
        for number, (operation, argument, _) in enumerate(pickletools.genops(io.BytesIO(content))):
            if number > MOST_OPERATIONS:
                raise ValueError(f"it has more than {MOST_OPERATIONS:,} operations")
            if operation.name == "STOP":
                break
            if operation.name not in self.operations and operation.name != "PROTO":
                raise ValueError(f"it has the operation {operation.name}, which official files lack")
            if operation.name != "PROTO":
                self.operations[operation.name](argument)
        if len(self.stack) != 1:
            raise ValueError(f"it ends with {len(self.stack)} objects")
        return self.stack[0]

    def _to_mark(self) -> list[Any]:
        """Remove and return what is above the last mark."""
        taken: list[Any] = []
        while (item := self.stack.pop()) is not MARK:
            taken.append(item)
        return taken[::-1]

    def _push(self, item: object, _: object) -> None:
        self.stack.append(item)

    def _tuple(self, count: int, _: object) -> None:
        items = tuple(self.stack[-count:])
        if len(items) != count:
            raise ValueError("it is damaged")
        del self.stack[-count:]
        self.stack.append(items)

    def _append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise ValueError("it appends to something other than a list")
        target.extend(items)

    def _set(self, items: list[Any]) -> None:
        target, keys = self.stack[-1], items[::2]
        if type(target) is not dict or not all(type(key) is str for key in keys):
            raise ValueError("it has a dictionary whose keys are not strings")
        target.update(zip(keys, items[1::2], strict=True))

    def _recall(self, number: int) -> None:
        if number not in self.memo:
            raise ValueError(f"it recalls object {number}, which it never kept")
        self.stack.append(self.memo[number])

    def _name(self, name: str) -> None:
        if name not in NUMPY:
            raise ValueError(f"it asks for {name.replace(' ', '.')}, which official files do not")
        self.stack.append(_Name(name))

    def _call(self) -> None:
        args, name = self.stack.pop(), self.stack.pop()
        if type(name) is not _Name or type(args) is not tuple:
            raise ValueError("it calls something that is not a name")
        self.stack.append(_Made(name, args))

    def _build(self) -> None:
        state, made = self.stack.pop(), self.stack[-1]
        if type(made) is not _Made or type(state) is not tuple:
            raise ValueError("it gives a state to something other than an array")
        made.state = state


def _array(made: _Made) -> np.ndarray:
    """Return the uint8 array that a pickle describes: state (version, shape, dtype, Fortran order, bytes)."""
    state = made.state
    if made.name != "numpy.core.multiarray _reconstruct" or state is None or len(state) != 5:
        raise ValueError("it has an object that is not an array")
    _, shape, dtype, fortran, content = state
    kind = dtype.args[0] if type(dtype) is _Made and dtype.name == "numpy dtype" and dtype.args else None
    if kind != "u1" or fortran is not False or type(content) is not str:
        raise ValueError("it has an array that is not of type uint8")
    if type(shape) is not tuple or len(shape) != 2 or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("it has an array without two dimensions")
    if shape[0] * shape[1] != len(content):
        raise ValueError(f"its array of shape {shape} has {len(content):,} bytes")
    return np.frombuffer(content.encode("latin-1"), dtype=np.uint8).reshape(shape)

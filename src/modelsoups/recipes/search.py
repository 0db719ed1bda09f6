"""Searches, which draw the learning rate and the other hyperparameters (a recipe) of each run.

A search is a mapping read from YAML. `draw` is a pure function of (search, seed, index).

    kind: random                     kind: grid                        kind: list
    count: 72                        parameters:                       recipes:
    parameters:                        lr: [3.0e-5, 2.0e-5]              - {lr: 3.0e-5, aug: minimal}
      lr: {log10_uniform: [-6, -4]}    aug: [minimal, medium]            - {lr: 1.0e-5, aug: strong}

The distributions of a random search:

    constant: value                       choice: [value, ...]
    uniform: [low, high]                  log10_uniform: [low, high], exponents of 10
    integer: [low, high], both included   randaugment: {m: [low, high], n: [low, high]}
    mixture: [{p: 0.5, constant: 0.0}, {p: 0.5, uniform: [0, 1]}], p being probabilities

Several hyperparameters that vary together have one entry: their names with commas, and lists of
their values, in a grid as in

    aug,mixup: [[inception, 0.2], [minimal, 0.0]]

and in a random search as in `aug,mixup: {choice: [[inception, 0.2], [minimal, 0.0]]}`.

With `strata: n` beside (log10_)uniform, n recipes in a row draw from n equal parts of the range.

Every random number is a hash of (seed, index, parameter). Therefore a recipe is the same on any
machine and in any order, and a new parameter does not change the values of the others.
"""

import hashlib
import itertools
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from modelsoups.recipes.recipe import Recipe

Search = Mapping[str, Any]
KEYS = {"random": ("count", "parameters"), "grid": ("parameters",), "list": ("recipes",)}  # by kind
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
INTEGERS = tuple(f.name for f in fields(Recipe) if f.type in (int, int | None))


def validate(search: Any) -> None:
    """Raise ValueError, naming the key, unless the search has a valid form and valid values."""
    kind = search.get("kind") if isinstance(search, Mapping) else None
    if not isinstance(kind, str) or kind not in KEYS:
        raise ValueError(f"kind={kind}: expected one of {', '.join(KEYS)}")
    if set(search) != {"kind", *KEYS[kind]}:
        given = ", ".join(map(str, search))
        raise ValueError(f"a {kind} search must have the keys kind, {', '.join(KEYS[kind])}; not {given}")
    if kind == "random" and not (_is_int(search["count"]) and search["count"] >= 1):
        raise ValueError(f"count={search['count']}: expected an integer of at least 1")
    if kind == "list":
        _check_list(search["recipes"])
        return
    parameters = search["parameters"]
    if not isinstance(parameters, Mapping) or not parameters:
        raise ValueError("parameters: expected a mapping from hyperparameters to distributions or lists")
    _check_names("parameters", parameters)
    names = [name for joined in parameters for name in joined.split(",")]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"parameters: {twice[0]} is in two entries; give it one")
    for name, spec in parameters.items():
        if "," in name:
            _check_together(name, spec, kind)
        else:
            _check(name, _check_distribution if kind == "random" else _check_values, spec)


def size(search: Search) -> int:
    """Return the number of recipes in a search: for a random search, its `count`."""
    validate(search)
    if search["kind"] == "random":
        return int(search["count"])
    if search["kind"] == "grid":
        return math.prod(map(len, search["parameters"].values()))
    return len(search["recipes"])


def draw(search: Search, seed: int, index: int) -> dict[str, Any]:
    """Return recipe number `index` of a search as a dict, which includes the training seed.

    A random search accepts any index >= 0, also beyond its count. In a grid, the last parameter
    varies fastest. Raises ValueError if a grid or list has no recipe of this number.
    """
    total = size(search)
    if index < 0 or (search["kind"] != "random" and index >= total):
        raise ValueError(f"index {index} is out of range; the search has recipes 0 to {total - 1}")
    if search["kind"] == "list":
        values = dict(search["recipes"][index])
    elif search["kind"] == "grid":
        rows = itertools.product(*search["parameters"].values())
        values = dict(zip(search["parameters"], next(itertools.islice(rows, index, None)), strict=True))
    else:
        values = {}
        for name, spec in search["parameters"].items():
            values[name] = _draw(HashedNumbers(seed, index, name), spec)
    values = _apart(values)
    return values if "seed" in values else {**values, "seed": HashedNumbers(seed, index, "seed").bits() >> 1}


def _apart(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with one key for each hyperparameter, also of those that vary together."""
    apart: dict[str, Any] = {}
    for name, value in values.items():
        apart |= dict(zip(name.split(","), value, strict=True)) if "," in name else {name: value}
    return apart


@dataclass(frozen=True)
class HashedNumbers:
    """Random numbers: hashes of the seed, recipe index, hyperparameter name and a text `label`."""

    seed: int
    index: int
    name: str
    label: str = ""

    def at(self, label: str) -> "HashedNumbers":
        return HashedNumbers(self.seed, self.index, self.name, f"{self.label}/{label}")

    def bits(self) -> int:
        """Return 64 random bits as an integer."""
        text = json.dumps([self.seed, self.index, self.name, self.label])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")

    def uniform(self) -> float:
        """Return a uniform random number of at least 0 and below 1."""
        return (self.bits() >> 11) / 2**53

    def stratified(self, strata: int) -> float:
        """Return a number in [0, 1) by stratified sampling over `strata` consecutive recipes."""
        block, place = divmod(self.index, strata)

        def rank(part: int) -> int:
            return HashedNumbers(self.seed, block, self.name, f"stratum {part}").bits()

        return (sorted(range(strata), key=rank)[place] + self.uniform()) / strata


def _draw(numbers: HashedNumbers, spec: Mapping[str, Any]) -> Any:
    kind = next(key for key in spec if key not in ("p", "strata"))
    value = spec[kind]
    if kind == "constant":
        return value
    if kind == "choice":
        return value[int(numbers.uniform() * len(value))]
    if kind == "integer":
        return _integer(numbers, value)
    if kind == "randaugment":
        return f"rand-m{_integer(numbers.at('m'), value['m'])}-n{_integer(numbers.at('n'), value['n'])}"
    if kind == "mixture":
        u = numbers.at("p").uniform() * sum(part["p"] for part in value)
        number = 0
        while number < len(value) - 1 and u >= value[number]["p"]:
            u -= value[number]["p"]
            number += 1
        return _draw(numbers.at(str(number)), value[number])
    low, high = value
    u = numbers.stratified(spec["strata"]) if "strata" in spec else numbers.uniform()
    x = low + u * (high - low)
    return _rounded(10**x, 10**low, 10**high) if kind == "log10_uniform" else _rounded(x, low, high)


def _integer(numbers: HashedNumbers, bounds: Sequence[int]) -> int:
    return int(bounds[0] + math.floor(numbers.uniform() * (bounds[1] - bounds[0] + 1)))


def _rounded(x: float, low: float, high: float) -> float:
    """Return a drawn value rounded to 6 digits, so that all machines draw the same, in bounds."""
    return float(f"{min(max(float(f'{x:.6g}'), low), high):.12g}")


def _check(name: str, check: Callable[[str, Any], None], value: Any) -> None:
    """Call check(name, value), and put the parameter's name before the message of a ValueError."""
    if name not in Recipe.names():
        raise ValueError(f"parameters.{name}: no such hyperparameter; valid names: {', '.join(Recipe.names())}")
    try:
        check(name, value)
    except ValueError as error:
        raise ValueError(f"parameters.{name}: {error}") from error


def _check_together(joined: str, spec: Any, kind: str) -> None:
    """Raise ValueError unless `spec` lists values for several hyperparameters, named with commas."""
    names = joined.split(",")
    rows = spec
    if kind == "random":
        rows = spec.get("choice") if isinstance(spec, Mapping) and len(spec) == 1 else None
    if (
        not isinstance(rows, list | tuple)
        or not rows
        or not all(isinstance(row, list | tuple) and len(row) == len(names) for row in rows)
    ):
        form = f"lists of {len(names)} values"
        raise ValueError(f"parameters.{joined}: expected {f'choice: [{form}]' if kind == 'random' else f'[{form}]'}")
    for name, *values in zip(names, *rows, strict=True):
        _check(name, _check_values, values)


def _check_value(name: str, value: Any) -> None:
    if name in INTEGERS and value is not None and not _is_int(value):
        raise ValueError(f"expected an integer, not {value!r}")
    if isinstance(value, str) and NUMBER.fullmatch(value):
        way_out = "write it with a decimal point, such as 3.0e-5"
        raise ValueError(f"YAML reads {value} as text; {way_out}")
    Recipe.check(name, value)


def _check_values(name: str, values: Any) -> None:
    if not isinstance(values, list | tuple) or not values:
        raise ValueError(f"expected a non-empty list of values, not {values!r}")
    for value in values:
        _check_value(name, value)


def _check_list(recipes: Any) -> None:
    if not isinstance(recipes, list | tuple) or not recipes:
        raise ValueError("recipes: expected a non-empty list of mappings from hyperparameters to values")
    for number, recipe in enumerate(recipes):
        if not isinstance(recipe, Mapping):
            raise ValueError(f"recipes: entry {number} is {recipe!r}, not a mapping from hyperparameters to values")
        _check_names(f"recipes: entry {number}", recipe)
        for name, value in recipe.items():
            _check(name, _check_value, value)


def _check_names(where: str, values: Mapping[Any, Any]) -> None:
    if other := [name for name in values if not isinstance(name, str)]:
        raise ValueError(f"{where}: {other[0]!r} is not the name of a hyperparameter")


def _check_distribution(name: str, spec: Any, part: bool = False) -> None:
    """Raise ValueError unless `spec` is a distribution; part: one of a mixture, with a key p."""
    choices = ", ".join(DISTRIBUTIONS)
    if not isinstance(spec, Mapping):
        raise ValueError(f"expected a mapping with one distribution ({choices}), not {spec!r}")
    kinds = [key for key in spec if key != ("p" if part else "strata")]
    if len(kinds) != 1 or kinds[0] not in DISTRIBUTIONS:
        given = ", ".join(map(str, kinds)) or "none"
        raise ValueError(f"expected exactly one distribution of {choices}, not {given}")
    DISTRIBUTIONS[kinds[0]](name, spec[kinds[0]])
    strata = spec.get("strata", 1)
    stratified = "strata" not in spec or kinds[0] in ("uniform", "log10_uniform")
    if not (stratified and _is_int(strata) and strata >= 1):
        raise ValueError(f"strata={strata}: expected an integer of at least 1, and only with uniform or log10_uniform")


def _check_uniform(name: str, bounds: Any) -> None:
    if name in INTEGERS:
        raise ValueError("this hyperparameter is an integer; use integer: [low, high]")
    _check_values(name, _bounds(bounds))


def _check_log10(name: str, bounds: Any) -> None:
    low, high = _bounds(bounds)
    if max(abs(low), abs(high)) > 300:
        raise ValueError(f"log10_uniform: the exponents {bounds} are out of range; expected -300 to 300")
    _check_uniform(name, [10.0**low, 10.0**high])


def _check_integer(name: str, bounds: Any) -> None:
    _check_values(name, _bounds(bounds, whole=True))


def _check_randaugment(name: str, value: Any) -> None:
    if not isinstance(value, Mapping) or set(value) != {"m", "n"}:
        raise ValueError(f"randaugment expects {{m: [low, high], n: [low, high]}}, not {value!r}")
    for key, bounds in value.items():
        if _bounds(bounds, whole=True)[0] < 0:
            raise ValueError(f"randaugment {key}={bounds}: expected integers of at least 0")
    _check_value(name, f"rand-m{value['m'][0]}-n{value['n'][0]}")


def _check_mixture(name: str, parts: Any) -> None:
    if not isinstance(parts, list | tuple) or not parts:
        raise ValueError("mixture expects a non-empty list of {p: ..., <distribution>: ...}")
    for part in parts:
        p = part.get("p") if isinstance(part, Mapping) else None
        if p is None or not _is_real(p) or not 0 <= p <= 1:
            raise ValueError(f"mixture part {part!r} needs a probability p between 0 and 1")
        _check_distribution(name, part, part=True)
    total = sum(part["p"] for part in parts)
    if abs(total - 1) > 1e-3:
        raise ValueError(f"the probabilities p of the mixture sum to {total:g}, not to 1")


DISTRIBUTIONS: dict[str, Callable[[str, Any], None]] = {  # name -> check of its arguments
    "choice": _check_values,
    "constant": _check_value,
    "uniform": _check_uniform,
    "log10_uniform": _check_log10,
    "integer": _check_integer,
    "mixture": _check_mixture,
    "randaugment": _check_randaugment,
}


def _bounds(bounds: Any, whole: bool = False) -> tuple[Any, Any]:
    check = _is_int if whole else _is_real
    pair = isinstance(bounds, list | tuple) and len(bounds) == 2 and all(map(check, bounds))
    if not pair or bounds[0] > bounds[1]:
        raise ValueError(f"expected [low, high]{' as integers' if whole else ''} with low <= high, not {bounds}")
    return bounds[0], bounds[1]


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

"""Searches over recipes: a search is a mapping read from YAML, a draw a pure function of (search, seed, index).

    kind: random                     kind: grid                        kind: list
    count: 72                        parameters:                       recipes:
    parameters:                        lr: [3.0e-5, 2.0e-5]              - {lr: 3.0e-5, aug: minimal}
      lr: {log10_uniform: [-6, -4]}    aug: [minimal, medium]            - {lr: 1.0e-5, aug: strong}

Distributions: constant, choice, uniform [low, high], log10_uniform [low, high] (10 to that power), integer [low, high]
(both included), randaugment {m: [low, high], n: [low, high]}, mixture [{p: 0.5, constant: 0.0}, {p: 0.5, ...}].
`strata: n` beside uniform or log10_uniform deals each n consecutive indices one value from each n-th of the range.

Every number comes from a hash of (seed, index, parameter), not from a generator's state, so a draw is the same on any
machine and in any order, and a new parameter leaves the others as they were.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from modelsoups.recipes.recipe import Recipe

Search = Mapping[str, Any]
KEYS = {  # kind -> the keys of such a search
    "random": ("count", "parameters"),
    "grid": ("parameters",),
    "list": ("recipes",),
}
INTEGERS = tuple(f.name for f in fields(Recipe) if f.type == "int")


# ---- the three functions ----


def validate(search: Any) -> None:
    """ValueError naming the parameter and the valid choices, unless every draw of this search makes a valid recipe."""
    kind = search.get("kind") if isinstance(search, Mapping) else None
    if not isinstance(kind, str) or kind not in KEYS:
        raise ValueError(f"kind={kind}: expected a search of kind {', '.join(KEYS)}")
    if set(search) != {"kind", *KEYS[kind]}:
        raise ValueError(
            f"a {kind} search has the keys kind, {', '.join(KEYS[kind])}; not {', '.join(map(str, search))}"
        )
    if kind == "random" and not (_is_int(search["count"]) and search["count"] >= 1):
        raise ValueError(f"count={search['count']}: expected a whole number of at least 1")
    content = search[KEYS[kind][-1]]
    if kind == "list":
        _check_list(content)
        return
    if not isinstance(content, Mapping) or not content:
        raise ValueError("parameters: expected a mapping from recipe keys to their values")
    for name, spec in content.items():
        _check_name(name)
        if kind == "random":
            _check_spec(name, spec)
        else:
            _check_values(name, spec)


def size(search: Search) -> int:
    """How many recipes the search holds: count, the number of combinations, or the length of the list."""
    validate(search)
    if search["kind"] == "random":
        return int(search["count"])
    if search["kind"] == "grid":
        return math.prod(len(values) for values in search["parameters"].values())
    return len(search["recipes"])


def draw(search: Search, seed: int, index: int) -> dict[str, Any]:
    """The drawn values of recipe number `index`, by recipe key; `seed` for training is among them.

    A random search goes on beyond its count, which is only how many recipes it makes by default; a grid (the last
    parameter varies fastest) and a list end. Raises ValueError for an index that does not exist.
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
        values = {name: _draw(Source(seed, index, name), spec) for name, spec in search["parameters"].items()}
    return values if "seed" in values else {**values, "seed": Source(seed, index, "seed").bits() >> 1}


# ---- drawing ----


@dataclass(frozen=True)
class Source:
    """Random numbers for one parameter of one recipe; a label tells several apart."""

    seed: int
    index: int
    name: str
    label: str = ""

    def at(self, label: str) -> Source:
        return Source(self.seed, self.index, self.name, f"{self.label}/{label}")

    def bits(self) -> int:
        """64 random bits."""
        text = json.dumps([self.seed, self.index, self.name, self.label])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")

    def uniform(self) -> float:
        """At least 0, below 1."""
        return (self.bits() >> 11) / 2**53

    def stratified(self, strata: int) -> float:
        """As `uniform`, but each block of `strata` indices has one number in each part of that many equal parts."""
        block, place = divmod(self.index, strata)
        shuffled = sorted(range(strata), key=lambda j: Source(self.seed, block, self.name, f"stratum {j}").bits())
        return (shuffled[place] + self.uniform()) / strata


def _draw(source: Source, spec: Mapping[str, Any]) -> Any:
    kind = _kind(spec)
    value = spec[kind]
    if kind == "constant":
        return value
    if kind == "choice":
        return value[int(source.uniform() * len(value))]
    if kind == "integer":
        return _integer(source, value)
    if kind == "randaugment":
        return f"rand-m{_integer(source.at('m'), value['m'])}-n{_integer(source.at('n'), value['n'])}"
    if kind == "mixture":
        return _draw_part(source, value)
    low, high = value
    u = source.stratified(spec["strata"]) if "strata" in spec else source.uniform()
    x = low + u * (high - low)
    return _rounded(10**x, 10**low, 10**high) if kind == "log10_uniform" else _rounded(x, low, high)


def _draw_part(source: Source, parts: Sequence[Mapping[str, Any]]) -> Any:
    u = source.at("p").uniform() * sum(part["p"] for part in parts)
    number = 0
    while number < len(parts) - 1 and u >= parts[number]["p"]:
        u -= parts[number]["p"]
        number += 1
    return _draw(source.at(str(number)), parts[number])


def _integer(source: Source, bounds: Sequence[int]) -> int:
    return int(bounds[0] + math.floor(source.uniform() * (bounds[1] - bounds[0] + 1)))


def _rounded(x: float, low: float, high: float) -> float:
    """Six digits: a draw is reviewed by people, and the last bits of a power differ between mathematics libraries."""
    return float(f"{min(max(float(f'{x:.6g}'), low), high):.12g}")


def _kind(spec: Mapping[str, Any]) -> str:
    return str(next(key for key in spec if key not in ("p", "strata")))


# ---- checking ----


def _check_name(name: str) -> None:
    valid = Recipe.names()
    if name not in valid:
        raise ValueError(f"parameters.{name}: no such key of a recipe; valid keys: {', '.join(valid)}")


def _check_value(name: str, value: Any) -> None:
    if name in INTEGERS and not _is_int(value):
        raise ValueError(f"parameters.{name}: {value!r} is not a whole number")
    if isinstance(value, str) and _is_number(value):
        raise ValueError(f"parameters.{name}: YAML reads {value} as text; write a number with a point, such as 3.0e-5")
    try:
        Recipe.check(name, value)
    except ValueError as error:
        raise ValueError(f"parameters.{name}: {error}") from error


def _check_values(name: str, values: Any) -> None:
    if not isinstance(values, list | tuple) or not values:
        raise ValueError(f"parameters.{name}: expected a list of values, not {values!r}")
    for value in values:
        _check_value(name, value)


def _check_list(recipes: Any) -> None:
    if not isinstance(recipes, list | tuple) or not recipes:
        raise ValueError("recipes: expected a list of mappings from recipe keys to values")
    for number, recipe in enumerate(recipes):
        if not isinstance(recipe, Mapping):
            raise ValueError(f"recipes: number {number} is {recipe!r}, not a mapping from recipe keys to values")
        for name, value in recipe.items():
            _check_name(name)
            _check_value(name, value)


def _check_spec(name: str, spec: Any, part: bool = False) -> None:
    """One distribution; as a part of a mixture it has a p and may not be stratified."""
    if not isinstance(spec, Mapping):
        raise ValueError(f"parameters.{name}: expected a distribution ({_CHOICES}), not {spec!r}")
    kinds = [key for key in spec if key not in (("p",) if part else ("strata",))]
    if len(kinds) != 1 or kinds[0] not in DISTRIBUTIONS:
        given = ", ".join(map(str, kinds)) or "none"
        raise ValueError(f"parameters.{name}: distribution {given} is unknown; expected one of {_CHOICES}")
    DISTRIBUTIONS[kinds[0]](name, spec[kinds[0]])
    if "strata" in spec:
        strata = spec["strata"]
        if kinds[0] not in ("uniform", "log10_uniform") or not (_is_int(strata) and strata >= 1):
            raise ValueError(f"parameters.{name}: strata={strata}; expected 1 or more beside uniform or log10_uniform")


def _check_uniform(name: str, bounds: Any) -> None:
    low, high = _bounds(name, bounds)
    if name in INTEGERS:
        raise ValueError(f"parameters.{name}: takes whole numbers; use integer: [low, high]")
    _check_value(name, low)
    _check_value(name, high)


def _check_log10(name: str, bounds: Any) -> None:
    low, high = _bounds(name, bounds)
    if max(abs(low), abs(high)) > 300:
        raise ValueError(f"parameters.{name}: 10 to the power of {bounds} is out of range")
    _check_uniform(name, [10.0**low, 10.0**high])


def _check_integer(name: str, bounds: Any) -> None:
    low, high = _bounds(name, bounds, whole=True)
    _check_value(name, low)
    _check_value(name, high)


def _check_randaugment(name: str, value: Any) -> None:
    if not isinstance(value, Mapping) or set(value) != {"m", "n"}:
        raise ValueError(f"parameters.{name}: randaugment expects {{m: [low, high], n: [low, high]}}, not {value!r}")
    for key in ("m", "n"):
        low, high = _bounds(f"{name}.{key}", value[key], whole=True)
        if low < 0:
            raise ValueError(f"parameters.{name}: randaugment {key}=[{low}, {high}]; expected at least 0")
    _check_value(name, f"rand-m{value['m'][0]}-n{value['n'][0]}")


def _check_mixture(name: str, parts: Any) -> None:
    if not isinstance(parts, list | tuple) or not parts:
        raise ValueError(f"parameters.{name}: mixture expects a list of {{p: ..., <distribution>: ...}}")
    for part in parts:
        p = part.get("p") if isinstance(part, Mapping) else None
        if p is None or not _is_real(p) or not 0 <= p <= 1:
            raise ValueError(f"parameters.{name}: mixture part {part!r} needs a probability p between 0 and 1")
        _check_spec(name, part, part=True)
    total = sum(part["p"] for part in parts)
    if abs(total - 1) > 1e-3:
        raise ValueError(f"parameters.{name}: mixture probabilities sum to {total:g}, not 1")


DISTRIBUTIONS: dict[str, Callable[[str, Any], None]] = {
    "choice": _check_values,
    "constant": _check_value,
    "uniform": _check_uniform,
    "log10_uniform": _check_log10,
    "integer": _check_integer,
    "mixture": _check_mixture,
    "randaugment": _check_randaugment,
}
_CHOICES = ", ".join(DISTRIBUTIONS)


def _bounds(name: str, bounds: Any, whole: bool = False) -> tuple[Any, Any]:
    ok = isinstance(bounds, list | tuple) and len(bounds) == 2 and all(map(_is_int if whole else _is_real, bounds))
    if not ok or bounds[0] > bounds[1]:
        raise ValueError(f"parameters.{name}: expected [low, high]{' in whole numbers' if whole else ''}, not {bounds}")
    return bounds[0], bounds[1]


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

"""Averages the checkpoints that one training run saved at different steps.

The weighted average of checkpoints theta_0 ... theta_k equals the result of a learning-rate decay
on the same updates, theta_0 + sum_j w_j (theta_j - theta_{j-1}), if the coefficients are
c_0 = 1 - w_1, c_j = w_j - w_{j+1}, c_k = w_k (WSM, Tian et al. 2025, arXiv:2507.17634, section 3).
"""

import itertools
import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import NoReturn

from modelsoups.config.soup_options import SCHEDULES
from modelsoups.soup.coefficients import Soup
from modelsoups.soup.library import Sources, open_all
from modelsoups.weights import digests as digest
from modelsoups.weights.state_dicts import EVERYTHING

Curve = Callable[[float], float]  # from the decay's progress, 0 to 1, to the weight of an update
CURVES: dict[str, Curve] = {
    "1-x": lambda x: 1 - x,
    "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,
    "1-sqrt": lambda x: 1 - math.sqrt(x),
}
_WHOLE = r"[-_=.]?(\d+)(?![\da-z]|\.\d)"  # no part of 1.5k
STEP = re.compile(rf"(?:^|[^a-z])(?:global_?)?(?:steps?|iter|iteration|checkpoint|ckpt){_WHOLE}", re.IGNORECASE)
EPOCH = re.compile(rf"(?:^|[^a-z])(?:epochs?|ep){_WHOLE}", re.IGNORECASE)
RUN = re.compile(r"(?:^|[^a-z])((?:seed|run|trial|fold|rank|draw)s?[-_=.]?\d+)", re.IGNORECASE)
NUMBER = re.compile(r"\d+")
ALIASES = {"linear": "1-x", "lawa": "uniform", "sma": "uniform", "pma": "uniform"}
WAY_OUT = "give the steps, one for each checkpoint (steps=[...] or --steps)"
Schedule = str | Curve | Sequence[float]


def trajectory(
    sources: Sources,
    schedule: Schedule = "uniform",
    last: int | None = None,
    decay: float | None = None,
    steps: Sequence[float] | None = None,
) -> Soup:
    """Return a weighted average of checkpoints of one training run, in the order of their steps.

    schedule: a key of SCHEDULES; a decay curve, i.e. a function of the position x from 0 to 1 that
    falls from 1 to 0; or the weights w_1 ... w_k of the k updates between the checkpoints. A curve
    ends (x = 1) one interval after the last checkpoint, so "1-x" is the mean of equally spaced
    ones. last: average only the last so many checkpoints. decay: for "ema" only. steps: the
    checkpoints' steps, if their names do not contain them. Reads no weights. Raises ValueError if
    the order or the schedule is unknown, and for weights that rise or are outside 0 to 1.

        chosen = soup.trajectory(glob.glob("run/checkpoint-*"), schedule="1-sqrt", last=10)
        soup.mix(chosen, "soup.safetensors")
    """
    schedule = ALIASES.get(schedule.lower(), schedule) if isinstance(schedule, str) else schedule
    checkpoints = open_all(sources)
    found = steps_of([c.name for c in checkpoints]) if steps is None else _given(steps, len(checkpoints))
    ordered = sorted(zip(found, checkpoints, strict=True), key=lambda pair: pair[0])
    if last is not None:
        if not 1 <= last <= len(ordered):
            expected = f"1 to {len(ordered)}, the number of checkpoints"
            raise ValueError(f"trajectory: last={last}; expected {expected}")
        ordered = ordered[-last:]
    used, kept = [step for step, _ in ordered], [c for _, c in ordered]
    row = coefficients(used, schedule, decay)
    trace = [{"schedule": _name(schedule), **({} if decay is None else {"decay": decay})}]
    trace += [{"ingredient": c.name, "step": step} for step, c in ordered]
    return Soup(
        "trajectory", tuple(c.name for c in kept), tuple(map(digest.later, kept)), {EVERYTHING: row}, trace=tuple(trace)
    )


def coefficients(steps: Sequence[float], schedule: Schedule, decay: float | None = None) -> list[float]:
    """Return the checkpoints' coefficients, which sum to 1; ValueError as for `trajectory`.

    steps: the steps of the checkpoints, in ascending order.
    """
    count = len(steps)
    if (schedule == "ema") != (decay is not None):
        raise ValueError(
            f"trajectory: schedule {_name(schedule)} and decay={decay}; ema needs a decay, other schedules have none"
        )
    if schedule == "ema":
        assert decay is not None
        if not 0 <= decay < 1:
            raise ValueError(f"trajectory: decay={decay}; expected 0 to below 1")
        return [decay ** (count - 1), *((1 - decay) * decay ** (count - 1 - j) for j in range(1, count))]
    if schedule == "uniform":
        return [1 / count] * count
    if schedule == "wma":
        return [2 * (j + 1) / (count * (count + 1)) for j in range(count)]
    weights = [1.0, *_weights(steps, schedule), 0.0]
    return [a - b for a, b in itertools.pairwise(weights)]


def _weights(steps: Sequence[float], schedule: Schedule) -> list[float]:
    """Return w_1 ... w_k, the weight of the update between each two consecutive checkpoints."""
    if isinstance(schedule, str):
        if schedule not in CURVES:
            expected = f"one of {', '.join(SCHEDULES)}"
            raise ValueError(f"trajectory: no schedule {schedule}; expected {expected}")
        schedule = CURVES[schedule]
    updates = len(steps) - 1
    if callable(schedule):
        curve, length = schedule, (steps[-1] - steps[0]) * (updates + 1) / max(updates, 1)  # one mean interval longer
        found = [float(curve((step - steps[0]) / length)) for step in steps[1:]]
    else:
        found = list(map(float, schedule))
        if len(found) != updates:
            what = f"{len(found)} weights for {len(steps)} checkpoints"
            expected = f"{updates}, one for each update between two checkpoints"
            raise ValueError(f"trajectory: {what}; expected {expected}")
    for before, after in zip([1.0, *found], [*found, 0.0], strict=True):
        if not before >= after:  # also if one is NaN
            what = f"the weights of the updates are {', '.join(f'{w:.6g}' for w in found)}"
            raise ValueError(f"trajectory: {what}; expected numbers from 1 to 0 that do not rise")
    return found


def steps_of(names: Sequence[str]) -> list[int]:
    """Return the step in each name, such as 500 in checkpoint-500, global_step500 or step=500.

    Without such a word, the step is the epoch or the only number in which the names differ. Raises
    ValueError if a step is missing, two are equal, or the names may be of different runs.
    """
    if len(names) == 1:
        return [0]
    marks = {tuple(RUN.findall(name)): name for name in names}
    if len(marks) > 1:
        _refuse_runs(*marks.values())
    for pattern in (STEP, EPOCH):
        found = [_match(name, pattern) for name in names]
        if not any(found):
            continue
        if missing := next((name for name, match in zip(names, found, strict=True) if match is None), None):
            shown = next(name for name, match in zip(names, found, strict=True) if match is not None)
            raise ValueError(f"trajectory: {missing} has no step in its name, but {shown} has one; {WAY_OUT}")
        runs = {match[0]: name for name, match in zip(names, found, strict=True) if match is not None}
        if len(runs) > 1:
            _refuse_runs(*runs.values())
        steps = [match[1] for match in found if match is not None]
        if len(set(steps)) > 1:  # else it is another number that tells them apart
            return _distinct(names, steps)
    return _distinct(names, _only_number(names))


def _refuse_runs(one: str, other: str, *_: str) -> NoReturn:
    raise ValueError(f"trajectory: {one} and {other} seem to be from different runs by their names; {WAY_OUT}")


def _match(name: str, pattern: re.Pattern[str]) -> tuple[str, int] | None:
    """Return (the path up to the step, without epochs; the step) if part of the path has a step."""
    path = PurePath(name)
    for part in (path, *path.parents):
        if matches := list(pattern.finditer(part.name)):
            before = EPOCH.sub("", part.name[: matches[-1].start()])
            return os.path.abspath(part.parent / f"{before}..."), int(matches[-1][1])
    return None


def _only_number(names: Sequence[str]) -> list[int]:
    """Return the only number in which the names differ; ValueError if there is not exactly one."""
    texts, numbers = {NUMBER.sub("0", name) for name in names}, [NUMBER.findall(name) for name in names]
    columns = list(zip(*numbers, strict=True)) if len(texts) == 1 else []
    differing = [i for i, column in enumerate(columns) if len(set(map(int, column))) > 1]
    why = f"differ in {len(differing)} numbers" if columns else "differ in more than a number"
    if len(differing) == 1:
        before = NUMBER.split(names[0])[differing[0]]
        after = NUMBER.split(names[0], differing[0] + 1)[-1]
        if "/" not in after or (before.endswith("/") and after.startswith("/")):
            return [int(row[differing[0]]) for row in numbers]
        why = "seem to be from different runs"
    raise ValueError(f"trajectory: the names {names[0]}, {names[1]}{', ...' * (len(names) > 2)} {why}; {WAY_OUT}")


def _distinct(names: Sequence[str], steps: list[int]) -> list[int]:
    seen: dict[int, str] = {}
    for name, step in zip(names, steps, strict=True):
        if step in seen:
            raise ValueError(f"trajectory: {seen[step]} and {name} both have step {step}; {WAY_OUT}")
        seen[step] = name
    return steps


def _given(steps: Sequence[float], count: int) -> list[float]:
    if len(steps) != count or len(set(steps)) != count or not all(map(math.isfinite, steps)):
        raise ValueError(
            f"trajectory: steps={list(steps)}; expected {count} different numbers, one for each checkpoint"
        )
    return list(steps)


def _name(schedule: Schedule) -> str:
    if isinstance(schedule, str):
        return schedule
    if callable(schedule):
        return getattr(schedule, "__name__", type(schedule).__name__)
    return ", ".join(f"{w:.6g}" for w in schedule)

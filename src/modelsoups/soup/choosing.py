"""Greedy and learned soups over any checkpoints: sources in, coefficients out."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from modelsoups.checkpoints.layouts import check_layouts
from modelsoups.checkpoints.tensors import Checkpoint
from modelsoups.soup.coefficients import Ingredient, Soup
from modelsoups.soup.holdout import Holdout
from modelsoups.soup.library import Sources, hashes, mean, open_all
from modelsoups.soup.methods import METHODS, Pool, model_gradient
from modelsoups.soup.methods.greedy import Growth, Judged, Score, joins, random_order
from modelsoups.soup.pool import Gradient
from modelsoups.weights.state_dicts import RunningSum

Evaluate = Callable[[dict[str, Tensor]], float | Sequence[float]]


def greedy(
    sources: Sources,
    evaluate: Evaluate | Holdout,
    *,
    order_seed: int | None = None,
    replacement: bool = False,
    patience: int | None = None,
    strict: bool = False,
) -> Soup:
    """Recipe 1 (section 2): best first, each joins if the soup's hold-out score does not fall.

    `evaluate` takes a state dict and returns a score, larger being better, or several of which none may fall (they are
    ranked by their mean); a `Holdout` is counted with early rejection, and gives the same soup as a full count.
    order_seed: a random order instead. replacement: rounds over all until one helps nobody, where a second pick must be
    strictly better. patience: stop after so many refusals in a row. strict: the authors' code, where equal is refused.
    Holds one float64 sum and one checkpoint in memory. Raises ValueError naming the soup whose evaluation raised or
    is not a finite number.
    """
    if patience is not None and patience < 1:
        raise ValueError(f"greedy: patience={patience}; expected at least 1 refusal, or None")
    checkpoints = open_all(sources)
    check_layouts(checkpoints)
    judge_one, individual, n = _judges(checkpoints, evaluate)
    total = RunningSum()

    def judge(i: int, best: Score, strict: bool) -> Judged:
        whose = f"soup of {growth.so_far()} with {checkpoints[i].name}"
        return judge_one(total.mean_with(checkpoints[i]), best, strict, whose)

    growth = Growth([c.name for c in checkpoints], individual, judge, lambda i: total.add(checkpoints[i]), n)
    order = _order([c.name for c in checkpoints], individual, order_seed)
    turns = len(order) if patience is None else patience
    for step in range(len(order) * (len(order) if replacement else 1)):
        if growth.refused_in_a_row >= turns or len(growth.picks) >= 2 * len(order):
            break
        growth.consider(order[step % len(order)], strict or step >= len(order))
    return mean("greedy", [checkpoints[i] for i in growth.picks], growth.trace)


def pruned(sources: Sources, evaluate: Evaluate | Holdout) -> Soup:
    """Greedy from the other end: all together, then, worst first, each leaves if the score without it is no lower.

    Not in the paper (its appendix only grows soups); rounds go on until one removes nobody. Costs a full evaluation a
    candidate, and one float64 sum and one checkpoint in memory. Raises as `greedy` does.
    """
    checkpoints = open_all(sources)
    check_layouts(checkpoints)
    judge_one, individual, n = _judges(checkpoints, evaluate)
    total = RunningSum()
    for checkpoint in checkpoints:
        total.add(checkpoint)
    members = list(range(len(checkpoints)))
    first = individual[0]
    lowest: Score = tuple(-math.inf for _ in first) if isinstance(first, tuple) else 0
    judged, _ = judge_one(total.divided(len(members)), lowest, False, "soup of all")
    assert judged is not None  # nothing is lower than the lowest
    score: Score = judged
    trace: list[dict[str, Any]] = [{"ingredient": None, "correct": score, "n": n, "kept": True, "best": score}]
    worst_first = list(reversed(_order([c.name for c in checkpoints], individual, None)))
    removed = True
    while removed:
        removed = False
        for i in worst_first:
            if i not in members or len(members) == 1:
                continue
            name = checkpoints[i].name
            without = total.without(checkpoints[i], len(members) - 1)
            judged, _ = judge_one(without, score, False, f"soup without {name}")
            leaves = judged is not None and joins(judged, score, False)
            if leaves and judged is not None:
                total.add(checkpoints[i], -1.0)
                members.remove(i)
                score, removed = judged, True
            trace.append({"ingredient": name, "correct": judged, "n": n, "kept": not leaves, "best": score})
    return mean("pruned", [checkpoints[i] for i in members], trace)


LEARNED = {"all": "learned", "layer": "learned_layers", "tensor": "learned_tensors", "free": "learned_free"}


def learned(sources: Sources, holdout: Holdout, *, by: str = "all", **options: Any) -> Soup:
    """Appendix I, equation 2: coefficients by gradient descent on the hold-out, and the temperature beta.

    by: one softmax for "all" tensors, for each "layer" group or each "tensor"; "free" has no softmax. Options as of
    `core.methods.learned`: epochs, lr, batch_size, seed. A step costs one forward and backward of one model, whatever
    the number of checkpoints, and each of their bytes twice; memory is that plus what `core.methods.stack` says.
    """
    if by not in LEARNED:
        raise ValueError(f"by={by}: expected one of {', '.join(LEARNED)}")
    checkpoints = open_all(sources)
    check_layouts(checkpoints)
    ingredients = zip(checkpoints, hashes(checkpoints), strict=True)

    def gradient(state: Mapping[str, Tensor], beta: float, index_B: Tensor) -> Gradient:
        return model_gradient(holdout.model, state, beta, *holdout.batch(index_B))

    pool = Pool(
        ingredients=tuple(Ingredient(c.name, c.name, sha256, None) for c, sha256 in ingredients),
        logits=tuple(_logits(holdout, c) for c in checkpoints),
        labels_N=holdout.labels_N,
        state=checkpoints.__getitem__,
        evaluate=holdout.logits,
        gradient=gradient,
        device=next(holdout.model.parameters()).device,
    )
    return METHODS[LEARNED[by]](pool, **options)


def _order(names: Sequence[str], individual: Sequence[Score], seed: int | None) -> list[int]:
    if seed is not None:
        return random_order(names, seed)
    scores = [s if isinstance(s, (int, float)) else sum(s) / len(s) for s in individual]
    return sorted(range(len(scores)), key=lambda i: (scores[i], i), reverse=True)  # of equals the later, as in Pool


def _judges(
    checkpoints: Sequence[Checkpoint], evaluate: Evaluate | Holdout
) -> tuple[Callable[[dict[str, Tensor], Score, bool, str], Judged], list[Score], int]:
    """How a mixed state is judged, each checkpoint's own score, and the number of images (0: unknown)."""
    if not isinstance(evaluate, Holdout):
        full = functools.partial(_score, evaluate)
        individual = [full(dict(c), c.name) for c in checkpoints]
        if len({len(s) if isinstance(s, tuple) else 0 for s in individual}) > 1:
            raise ValueError("evaluate: gave scores of different lengths; expected one or the same metrics each time")
        return (lambda state, best, strict, whose: (full(state, whose), 0)), individual, 0
    logits = [_logits(evaluate, c) for c in checkpoints]
    evaluate.hardest_first(logits)
    correct: list[Score] = [int((x.argmax(dim=1) == evaluate.labels_N).sum()) for x in logits]

    def count(state: dict[str, Tensor], best: Score, strict: bool, whose: str) -> Judged:
        assert isinstance(best, int)
        try:
            return evaluate.count(state, best + strict)
        except ValueError as error:
            raise ValueError(f"{whose}: {error}") from error

    return count, correct, len(evaluate)


def _logits(holdout: Holdout, checkpoint: Checkpoint) -> Tensor:
    try:
        logits_NC = holdout.logits(checkpoint)
    except RuntimeError as error:
        raise ValueError(f"{checkpoint.name} does not fit the model: {' '.join(str(error).split())[:300]}") from error
    if not bool(torch.isfinite(logits_NC).all()):
        raise ValueError(f"{checkpoint.name}: hold-out logits hold NaN or infinity")
    return logits_NC


def _score(evaluate: Evaluate, state: dict[str, Tensor], whose: str) -> Score:
    try:
        value: Any = evaluate(state)
    except Exception as error:
        raise ValueError(f"evaluate raised {type(error).__name__} for {whose}: {error}") from error
    several = isinstance(value, (tuple, list))
    try:
        if (several and not value) or any(isinstance(v, (bool, str)) for v in (value if several else [value])):
            raise TypeError
        score = tuple(map(float, value)) if several else float(value)
    except (TypeError, ValueError, RuntimeError) as error:  # of a tensor of several numbers
        shown = " ".join(repr(value).split())[:80]
        raise ValueError(f"evaluate returned {shown} for {whose}; expected a number, or a list of several") from error
    if not all(map(math.isfinite, score if isinstance(score, tuple) else [score])):
        raise ValueError(f"evaluate returned {value} for {whose}; expected a finite number")
    return score

"""Choose a soup of any checkpoints on a hold-out; return its coefficients."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from modelsoups.checkpoints.tensors import Checkpoint, Computed
from modelsoups.config.soup_options import LEARNED, By, OrderSeed, Patience, Replacement, Strict
from modelsoups.soup.coefficients import Soup
from modelsoups.soup.greedy_rule import Evaluation, GreedySearch, Score, best_first, joins, random_order
from modelsoups.soup.holdout import Holdout
from modelsoups.soup.library import Sources, as_ingredients, mean, open_alike
from modelsoups.soup.methods import METHODS, Pool, model_gradient
from modelsoups.soup.pool import Gradient
from modelsoups.stats import scores
from modelsoups.weights.state_dicts import RunningSum

Evaluate = Callable[[dict[str, Tensor]], float | Sequence[float]]  # state dict -> score or metrics
Judge = Callable[[dict[str, Tensor], Score, bool, str], Evaluation]  # state, best, strict, name


def greedy(
    sources: Sources,
    evaluate: Evaluate | Holdout,
    *,
    order_seed: OrderSeed = None,
    replacement: Replacement = False,
    patience: Patience = None,
    strict: Strict = False,
) -> Soup:
    """Choose a greedy soup (Recipe 1): add models, best first, unless the hold-out score falls.

    evaluate: a `Holdout`, which stops early on hopeless candidates (the result is the same), or a
    function from a state dict to a score (larger is better) or to several metrics. If there are
    several, none may fall, and checkpoints are ranked by their mean. Memory: one checkpoint and one
    float64 sum. Raises ValueError if tensor shapes differ, or `evaluate` fails or is not finite.

        chosen = soup.greedy(["a.safetensors", "b.pt"], soup.Holdout(model, loader))
        soup.mix(chosen, "soup.safetensors")
    """
    if patience is not None and patience < 1:
        raise ValueError(f"greedy: patience={patience}; expected a number from 1 on, or None")
    checkpoints = open_alike(sources)
    names = [c.name for c in checkpoints]
    judge_state, individual, n = _judges(checkpoints, evaluate)
    total = RunningSum()

    def judge(i: int, best: Score, strict: bool, name: str) -> Evaluation:
        return judge_state(total.mean_with(checkpoints[i]), best, strict, f"soup of {name}")

    search = GreedySearch(names, individual, judge, lambda i: total.add(checkpoints[i]), n)
    order = best_first(individual) if order_seed is None else random_order(names, order_seed)
    search.run(order, strict, replacement, patience)
    return mean("greedy", [checkpoints[i] for i in search.picks], search.trace)


def pruned(sources: Sources, evaluate: Evaluate | Holdout) -> Soup:
    """Choose a soup by removing checkpoints, worst first, if the score does not fall without them.

    The soup starts with all checkpoints; rounds over them repeat until a round removes none (not in
    the paper). `evaluate`, memory and errors are as for `greedy`; an attempt costs one evaluation.

        chosen = soup.pruned(["a.safetensors", "b.pt"], soup.Holdout(model, loader))
        soup.mix(chosen, "soup.safetensors")
    """
    checkpoints = open_alike(sources)
    judge, individual, n = _judges(checkpoints, evaluate)
    total = RunningSum()
    for checkpoint in checkpoints:
        total.add(checkpoint)
    members = list(range(len(checkpoints)))
    first = individual[0]
    lowest: Score = (-math.inf,) * len(first) if isinstance(first, tuple) else 0
    judged, _ = judge(total.divided(len(members)), lowest, False, "soup of all")
    assert judged is not None  # nothing is lower than the lowest
    score: Score = judged
    trace: list[dict[str, Any]] = [{"ingredient": None, "correct": score, "n": n, "kept": True, "best": score}]
    removed = True
    while removed:
        removed = False
        for i in reversed(best_first(individual)):
            if i not in members or len(members) == 1:
                continue
            name = checkpoints[i].name
            without = total.without(checkpoints[i], len(members) - 1)
            judged, _ = judge(without, score, False, f"soup without {name}")
            leaves = judged is not None and joins(judged, score, False)
            if leaves and judged is not None:
                total.add(checkpoints[i], -1.0)
                members.remove(i)
                score, removed = judged, True
            trace.append({"ingredient": name, "correct": judged, "n": n, "kept": not leaves, "best": score})
    return mean("pruned", [checkpoints[i] for i in members], trace)


def learned(sources: Sources, holdout: Holdout, *, by: By = "all", **options: Any) -> Soup:
    """Learn coefficients and temperature beta by gradient descent on the hold-out (appendix I).

    by: learn one softmax over the checkpoints for "all" tensors, each "layer" or each "tensor", or
    "free" coefficients without softmax. options: epochs, lr, batch_size and seed, as in
    `soup.methods.learned`. A step is one forward and backward pass of one model and reads each
    checkpoint twice, from memory or disk. Raises ValueError for an unknown
    `by`, checkpoints that differ in shape or do not fit the model, and a loss that is not finite.

        chosen = soup.learned(["a.safetensors", "b.pt"], holdout, by="layer", epochs=5)
        soup.mix(chosen, "soup.safetensors")
    """
    if by not in LEARNED:
        raise ValueError(f"learned: by={by}; expected one of {', '.join(LEARNED)}")
    checkpoints = open_alike(sources)
    if by == "free" and any(type(e) is Computed for c in checkpoints for e in c.entries.values()):
        text = "free coefficients of adapters need not sum to 1, and then `mix` scales the updates but not the base"
        raise ValueError(f'{text}, unlike in training: use by="tensor"')
    return METHODS[LEARNED[by]](_pool(checkpoints, holdout), **options)


def mehl(sources: Sources, holdout: Holdout, **options: Any) -> Soup:
    """Learn coefficients of each tensor that sum to one and may be negative (MEHL-Soup+).

    Li et al. 2024, arXiv:2407.03641; it is the best soup of the paper's 72 models that we know of.
    options: epochs, lr, batch_size, block and seed, as in `soup.methods.mehl`. Memory: `block` + 1
    checkpoints. Raises ValueError as `learned` does.

        chosen = soup.mehl(["a.safetensors", "b.pt"], holdout, block=18)
        soup.mix(chosen, "soup.safetensors")
    """
    return METHODS["mehl"](_pool(open_alike(sources), holdout), **options)


def radin(sources: Sources, holdout: Holdout, **options: Any) -> Soup:
    """Choose a subset by the ensembles of its models, evaluating few soups (RADIN, arXiv:2401.17790).

    options: budget (soups evaluated), candidates and seed, as in `soup.methods.radin`. Memory: two
    checkpoints, and the logits of all. Raises ValueError if tensor shapes differ, checkpoints do not
    fit the model, or logits are not finite.

        chosen = soup.radin(["a.safetensors", "b.pt", "c.pt"], holdout, budget=10)
        soup.mix(chosen, "soup.safetensors")
    """
    return METHODS["radin"](_pool(open_alike(sources), holdout), **options)


def soce(sources: Sources, holdout: Holdout, **options: Any) -> Soup:
    """Choose weights of the models that are best on a category of classes (SoCE, arXiv:2511.13254).

    options: categories, as in `soup.methods.soce`. Memory and errors are as for `radin`.

        chosen = soup.soce(["a.safetensors", "b.pt", "c.pt"], holdout, categories=3)
        soup.mix(chosen, "soup.safetensors")
    """
    return METHODS["soce"](_pool(open_alike(sources), holdout), **options)


def _pool(checkpoints: Sequence[Checkpoint], holdout: Holdout) -> Pool:
    """Return what the methods of the pipeline choose from: the checkpoints and their logits."""

    def gradient(state: Mapping[str, Tensor], beta: float, index_B: Tensor) -> Gradient:
        return model_gradient(holdout.model, state, beta, *holdout.batch(index_B))

    return Pool(
        ingredients=as_ingredients(checkpoints),
        logits=tuple(_logits(holdout, c) for c in checkpoints),
        labels_N=holdout.labels_N,
        state=checkpoints.__getitem__,
        evaluate=holdout.logits,
        gradient=gradient,
        device=next(holdout.model.parameters()).device,
    )


def _judges(checkpoints: Sequence[Checkpoint], evaluate: Evaluate | Holdout) -> tuple[Judge, list[Score], int]:
    """Return (a function that scores weights, the checkpoints' scores, the number of images)."""
    if not isinstance(evaluate, Holdout):
        full = functools.partial(_score, evaluate)
        own = ({key: tensor.clone() for key, tensor in c.items()} for c in checkpoints)  # may be changed
        individual = [full(state, c.name) for state, c in zip(own, checkpoints, strict=True)]
        if len({len(s) if isinstance(s, tuple) else 0 for s in individual}) > 1:
            expected = "the same each time"
            raise ValueError(f"evaluate returned different numbers of metrics; expected {expected}")
        return (lambda state, best, strict, name: (full(state, name), 0)), individual, 0
    logits = [_logits(evaluate, c) for c in checkpoints]
    evaluate.hardest_first(logits)
    correct: list[Score] = [scores.correct(x, evaluate.labels_N) for x in logits]

    def count(state: dict[str, Tensor], best: Score, strict: bool, name: str) -> Evaluation:
        assert isinstance(best, int)
        try:
            return evaluate.count(state, best + strict)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error

    return count, correct, len(evaluate)


def _logits(holdout: Holdout, checkpoint: Checkpoint) -> Tensor:
    try:
        logits_NC = holdout.logits(checkpoint)
    except RuntimeError as error:
        raise ValueError(f"{checkpoint.name} does not fit the model: {' '.join(str(error).split())[:300]}") from error
    if not bool(torch.isfinite(logits_NC).all()):
        way_out = "leave the checkpoint out"
        raise ValueError(f"{checkpoint.name}: hold-out logits contain NaN or infinity; {way_out}")
    return logits_NC


def _score(evaluate: Evaluate, state: dict[str, Tensor], name: str) -> Score:
    try:
        value: Any = evaluate(state)
    except (Exception, SystemExit) as error:
        raise ValueError(f"evaluate raised {type(error).__name__} for {name}: {error}") from error
    several = isinstance(value, (tuple, list))
    metrics = value if several else [value]
    try:
        if not metrics or any(isinstance(v, (bool, str)) for v in metrics):
            raise TypeError
        numbers = tuple(map(float, metrics))
    except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: of a longer tensor
        shown = " ".join(repr(value).split())[:80]
        expected = "a number or a list of numbers"
        raise ValueError(f"evaluate returned {shown} for {name}; expected {expected}") from error
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"evaluate returned {value} for {name}; expected a finite number")
    return numbers if several else numbers[0]

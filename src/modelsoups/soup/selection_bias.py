"""Selection bias: a soup's gain on the images it was chosen on, compared with other images."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from modelsoups.soup.coefficients import Soup
from modelsoups.soup.pool import Pool


@dataclass(frozen=True)
class Bias:
    """A soup's gain over the best individual model on each of N images, both chosen on half of these.

    A gain is 1 if only the soup is correct, -1 if only the model is, else 0. apparent_N: chosen on
    the half that has the image. honest_N: chosen on the other half.
    """

    apparent_N: np.ndarray
    honest_N: np.ndarray

    @property
    def apparent(self) -> float:
        return float(self.apparent_N.mean())

    @property
    def honest(self) -> float:
        return float(self.honest_N.mean())

    @property
    def optimism(self) -> float:
        return self.apparent - self.honest


def part_of(pool: Pool, index_n: Tensor) -> Pool:
    """Return a pool of the same models with only the hold-out images `index_n`."""
    evaluate, points = pool.evaluate, pool.points
    return dataclasses.replace(
        pool,
        logits=tuple(logits_NC[index_n] for logits_NC in pool.logits),
        labels_N=pool.labels_N[index_n],
        evaluate=lambda state: evaluate(state)[index_n],
        points=points.part(index_n) if hasattr(points, "part") else points,
    )


def halves(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Split indices 0 to n - 1 randomly into two sorted halves, the same on any machine."""
    order = torch.from_numpy(np.random.default_rng(seed).permutation(n))
    return order[: n // 2].sort().values, order[n // 2 :].sort().values


def selection_bias(
    pool: Pool,
    method: Callable[[Pool], Soup],
    logits_of: Callable[[Soup], Tensor],
    seed: int = 0,
    part_of: Callable[[Pool, Tensor], Pool] = part_of,
) -> Bias:
    """Choose a soup and the best model on each half of the hold-out; compare them on both halves.

    logits_of(soup): the soup's logits on the complete hold-out, (N images, C classes).
    part_of(pool, indices): the pool with only these hold-out images.
    """
    one, two = halves(len(pool.labels_N), seed)
    apparent_N, honest_N = np.zeros(len(pool.labels_N)), np.zeros(len(pool.labels_N))
    for chosen_on, others in ((one, two), (two, one)):
        part = part_of(pool, chosen_on)
        best_N = _correct(pool, pool.logits[part.by_score[0]])
        gain_N = _correct(pool, logits_of(method(part))) - best_N
        apparent_N[chosen_on], honest_N[others] = gain_N[chosen_on], gain_N[others]
    return Bias(apparent_N, honest_N)


def _correct(pool: Pool, logits_NC: Tensor) -> np.ndarray:
    found: np.ndarray = (logits_NC.argmax(dim=1) == pool.labels_N).double().numpy()
    return found

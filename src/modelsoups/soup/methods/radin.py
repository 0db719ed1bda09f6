"""RADIN: the subset of the models whose soup is best, of those whose ensembles promise most.

Menes and Risser-Maroix, "RADIN: Souping on a Budget" (arXiv:2401.17790). To first order around the
initialization the mean of models' weights computes the mean of their logits. These are cached, so an
ensemble costs no forward pass: subsets are ranked by their ensembles, and only the first are mixed.

Letters of array names: K ingredients, S subsets, N images, B images of a block, C classes.
"""

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from modelsoups.config.soup_options import Budget, Candidates, Draw
from modelsoups.soup.candidates import best_of, label_of
from modelsoups.soup.coefficients import Soup
from modelsoups.soup.logit_blocks import BLOCK, blocks
from modelsoups.soup.pool import Pool
from modelsoups.stats import scores

ATTEMPTS = 20  # draws for each subset that is wanted, since some repeat earlier ones


def radin(pool: Pool, *, budget: Budget = 10, candidates: Candidates = 1000, seed: Draw = 0) -> Soup:
    """Choose a subset of the models by their cached ensembles, evaluating `budget` soups (RADIN).

    Candidates are all subsets of two or more models, if these are at most `candidates`. Otherwise
    they are the sets of the n best models and subsets drawn at random (the paper's Monte Carlo), whose
    sizes are equally probable. The best model alone is chosen if it beats all soups evaluated. Raises
    ValueError if budget or candidates is below 1.
    """
    if budget < 1 or candidates < 1:
        raise ValueError(f"radin: budget={budget}, candidates={candidates}; expected at least 1")
    subsets = subsets_of(pool.by_score, candidates, seed)
    ensembles = ensemble_scores(pool, subsets)
    ranked = sorted(range(len(subsets)), key=ensembles.__getitem__, reverse=True)[:budget]
    first = pool.by_score[0]
    about = [{"ensemble": score} for score in [*(ensembles[s] for s in ranked), pool.individual_scores[first]]]
    return best_of(pool, "radin", [*(subsets[s] for s in ranked), (first,)], about)


def subsets_of(order: Sequence[int], most: int, seed: int) -> list[tuple[int, ...]]:
    """Return at most `most` subsets of two or more models, each sorted as in `order` (best first).

    These are all subsets, the smallest first, or if they are more than `most`, the first 2, 3, ...
    models and subsets that are drawn at random.
    """
    count = len(order)
    if 2**count - count - 1 <= most:
        bits = sorted(range(2**count), key=lambda mask: (mask.bit_count(), mask))
        return [tuple(i for n, i in enumerate(order) if mask >> n & 1) for mask in bits if mask.bit_count() > 1]
    drawn = dict.fromkeys(tuple(range(size)) for size in range(2, count + 1))
    generator = random.Random(seed)
    for _ in range(ATTEMPTS * most):
        if len(drawn) >= most:
            break
        drawn[tuple(sorted(generator.sample(range(count), generator.randint(2, count))))] = None
    return [tuple(order[n] for n in places) for places in list(drawn)[:most]]


def ensemble_scores(pool: Pool, subsets: Sequence[Sequence[int]]) -> list[float]:
    """Return the hold-out score of each subset's ensemble, the mean of its models' logits."""
    if pool.points is scores.correct:  # counted in blocks of images, for many subsets at a time
        return _counts(pool, subsets).tolist()
    found = []
    for subset in subsets:
        mean_NC = torch.stack([pool.logits[i].double() for i in subset]).mean(dim=0)
        found.append(pool.score_of(mean_NC, f"ensemble of {label_of(pool, subset)}"))
    return found


def _counts(pool: Pool, subsets: Sequence[Sequence[int]]) -> Tensor:
    """Return how many images each subset's ensemble gets right, (S,)."""
    member_SK = torch.zeros(len(subsets), len(pool))
    for row_K, subset in zip(member_SK, subsets, strict=True):
        row_K[list(subset)] = 1
    right_S = torch.zeros(len(subsets), dtype=torch.int64)
    labels_N = pool.labels_N.cpu()
    for part, block_KBC in blocks(list(pool.logits)):
        _, images, classes = block_KBC.shape
        flat_KM = block_KBC.flatten(1)
        for some in torch.arange(len(subsets)).split(max(1, BLOCK // (images * classes))):
            sums_SBC = (member_SK[some] @ flat_KM).unflatten(1, (images, classes))
            right_S[some] += (sums_SBC.argmax(dim=2) == labels_N[part]).sum(dim=1)
    return right_S

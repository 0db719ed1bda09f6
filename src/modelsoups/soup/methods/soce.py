"""SoCE, the Soup of Category Experts: a weighted mean of the models that are best at something.

Maiti et al., "Souper-Model" (arXiv:2511.13254), for language models: the categories of a benchmark
on which the models' scores are weakly correlated have each an expert, and the experts' weights are
searched on a grid. A hold-out has no categories, but classes. So here classes on which the same models
do well are grouped, and a fixed number of groups takes the place of the paper's threshold.

Letters of array names: K ingredients, C classes that the hold-out has, G categories.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from modelsoups.config.soup_options import Categories
from modelsoups.soup.candidates import best_of
from modelsoups.soup.coefficients import Soup
from modelsoups.soup.holdout import check_labels
from modelsoups.soup.pool import Pool

TENTHS = 10  # the grid: an expert's weight is 0.1, 0.2, ...


def soce(pool: Pool, *, categories: Categories = 3) -> Soup:
    """Choose a weighted mean of category experts on a grid of tenths (SoCE).

    Classes are clustered by the correlation of their accuracies over the models into `categories`
    groups. The expert of a group has the most hold-out images of it right (ties: the better model).
    Equal weights, and all weights of at least 0.1 in steps of 0.1, are mixed and evaluated: with 2, 3
    or 4 experts, 9, 37 or 85 evaluations. Without a second expert, the soup is one model. Raises
    ValueError if `categories` is not from 2 to 10 or labels are not classes.
    """
    if not 2 <= categories <= TENTHS:
        raise ValueError(f"soce: categories={categories}; expected 2 to {TENTHS}")
    check_labels(pool.labels_N, pool.logits[0].shape[1])
    experts = experts_of(pool, categories)
    about = {"experts": {pool.ingredients[i].id: classes for i, classes in experts.items()}}
    grid = weights_of(list(experts))
    return best_of(pool, "soce", grid, [about, *({} for _ in grid[1:])])


def experts_of(pool: Pool, categories: int) -> dict[int, list[int]]:
    """Return the classes of each expert, by its index; the expert of most classes comes first."""
    labels_N = pool.labels_N.cpu().numpy()
    classes_C, count_C = np.unique(labels_N, return_counts=True)
    right_KC = np.zeros((len(pool), len(classes_C)), dtype=np.int64)
    for right_C, logits_NC in zip(right_KC, pool.logits, strict=True):
        right_N = logits_NC.argmax(dim=1).cpu().numpy() == labels_N
        right_C += np.array([np.sum(right_N[labels_N == c]) for c in classes_C])
    experts: dict[int, list[int]] = {}
    group_C = categories_of(right_KC / count_C, categories)
    for group in np.unique(group_C):
        right_K = right_KC[:, group_C == group].sum(axis=1)
        expert = max(pool.by_score, key=right_K.__getitem__)  # max returns the first of equals
        experts.setdefault(expert, []).extend(classes_C[group_C == group].tolist())
    return dict(sorted(experts.items(), key=lambda item: -len(item[1])))


def categories_of(accuracy_KC: np.ndarray, most: int) -> np.ndarray:
    """Return the category of each class, (C,): at most `most`, clustered by complete linkage.

    The distance of two classes is 1 minus the correlation of their accuracies over the models. A
    class on which all models do equally well tells nothing apart: its distances are 0.
    """
    from scipy.cluster.hierarchy import fcluster, linkage  # these take a quarter of a second to import
    from scipy.spatial.distance import squareform

    models, classes = accuracy_KC.shape
    if models < 2 or classes < 2:
        return np.ones(classes, dtype=np.int64)
    centred_KC = accuracy_KC - accuracy_KC.mean(axis=0)
    length_C = np.linalg.norm(centred_KC, axis=0)
    same_C = length_C < 1e-12
    unit_KC = centred_KC / np.where(same_C, 1, length_C)
    distance_CC = 1 - np.clip(unit_KC.T @ unit_KC, -1, 1)
    distance_CC[same_C] = distance_CC[:, same_C] = 0
    np.fill_diagonal(distance_CC, 0)
    found: np.ndarray = fcluster(linkage(squareform(distance_CC, checks=False), "complete"), most, "maxclust")
    return found


def weights_of(experts: Sequence[int]) -> list[list[int]]:
    """Return the candidates: indices of experts, once each, then repeated as their tenths say."""
    candidates = [list(experts)]
    for cuts in itertools.combinations(range(1, TENTHS), len(experts) - 1):
        tenths = np.diff([0, *cuts, TENTHS])
        if len(set(tenths.tolist())) > 1:  # equal weights are the first candidate
            candidates.append(np.repeat(experts, tenths).tolist())
    return candidates

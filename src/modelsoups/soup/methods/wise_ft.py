"""WiSE-FT: interpolation from the initialization to a model or a soup (appendix D)."""

from modelsoups.config.soup_options import Alpha
from modelsoups.soup.coefficients import Ingredient, Soup
from modelsoups.weights.state_dicts import EVERYTHING


def wise_ft(start: Ingredient, end: Soup | Ingredient, *, alpha: Alpha) -> Soup:
    """Return the soup (1 - alpha) * start + alpha * end (WiSE-FT, Wortsman et al. 2021).

    If `end` contains `start` (soup.initialization), its two coefficients add up. Raises ValueError if
    alpha is not from 0 to 1, or if `end` is an ensemble or contains another model with the id of `start`.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"wise_ft: alpha={alpha}; expected 0 (the initialization) to 1 (the fine-tuned weights)")
    if isinstance(end, Ingredient):
        end = Soup(end.id, (end.id,), (end.sha256,), {EVERYTHING: [1.0]})
    if end.space != "weights":
        raise ValueError(f"wise_ft: {end.method} mixes {end.space}, not weights; give a soup of weights")
    known = dict(zip(end.ingredients, end.hashes, strict=True))
    if known.get(start.id, start.sha256) != start.sha256:
        raise ValueError(f"wise_ft: {start.id} is already an ingredient of {end.method}, with other weights")
    others = [n for n, name in enumerate(end.ingredients) if name != start.id]
    coefficients = {}
    for group, row in end.coefficients.items():
        inside = row[end.ingredients.index(start.id)] if start.id in known else 0.0
        coefficients[group] = [1 - alpha + alpha * inside, *(alpha * row[n] for n in others)]
    return Soup(
        method="wise_ft",
        ingredients=(start.id, *(end.ingredients[n] for n in others)),
        hashes=(start.sha256, *(end.hashes[n] for n in others)),
        coefficients=coefficients,
        trace=({"alpha": alpha, "towards": end.method},),
    )

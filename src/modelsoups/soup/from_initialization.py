"""Soups that need the models' initialization but no data: WiSE-FT, Model Stock, LiNeS."""

import math
from collections.abc import Iterable, Mapping, Sequence

from modelsoups.checkpoints.formats import Source
from modelsoups.checkpoints.states import State, averaged
from modelsoups.checkpoints.tensors import Checkpoint
from modelsoups.config.soup_options import AddedScale, Alpha, FirstScale
from modelsoups.soup.coefficients import Soup
from modelsoups.soup.library import Sources, as_ingredients, hashes, open_alike
from modelsoups.soup.methods.wise_ft import wise_ft as interpolation
from modelsoups.weights.angles import HEAD, cosines, entry, from_first
from modelsoups.weights.coefficient_gradients import grams
from modelsoups.weights.state_dicts import EVERYTHING, is_block, layer_of

ROUNDING = 1e-26  # relative squared norm of an update that is only float64 rounding


def wise_ft(init: Source, source: Source, alpha: Alpha) -> Soup:
    """Return the soup (1 - alpha) init + alpha source (Wortsman et al. 2021, arXiv:2109.01903).

    Raises ValueError if the tensor shapes differ, or alpha is not from 0 to 1.

        chosen = soup.wise_ft("pretrained.pt", "finetuned.pt", alpha=0.5)
        soup.mix(chosen, "soup.safetensors")
    """
    start, end = as_ingredients(open_alike([init, source]))
    return interpolation(start, end, alpha=alpha)


def model_stock(init: Source, sources: Sources) -> Soup:
    """Return the Model Stock soup init + t (mean - init) (Jang et al. 2024, arXiv:2403.19522).

    mean: of `sources`; t: see `stock_ratios`. ValueError for one source or different tensor shapes.

        chosen = soup.model_stock("pretrained.pt", ["a.pt", "b.pt"])
        soup.mix(chosen, "soup.safetensors")
    """
    checkpoints = _open(init, sources)
    ratios = stock_ratios(checkpoints[0], checkpoints[1:])
    trace = [{"tensor": key, "t": t} for key, t in ratios.items()]
    return _from_start("model_stock", checkpoints, {**ratios, EVERYTHING: 1.0}, trace)


def lines(init: Source, sources: Sources, alpha: FirstScale, beta: AddedScale) -> Soup:
    """Return the LiNeS soup: updates scaled linearly by depth (Wang et al. 2024, arXiv:2410.17146).

    It is init + lambda_l (mean of sources - init), with lambda_l from `depth_scales` for layer l.
    Raises ValueError if tensor shapes differ or the model has fewer than two blocks.

        chosen = soup.lines("pretrained.pt", ["a.pt", "b.pt"], alpha=0.2, beta=0.8)
        soup.mix(chosen, "soup.safetensors")
    """
    checkpoints = _open(init, sources)
    if len(checkpoints) == 1:
        raise ValueError("lines: no checkpoints besides the initialization")
    scales = depth_scales(checkpoints[0], alpha, beta)
    return _from_start("lines", checkpoints, scales, [{"alpha": alpha, "beta": beta}])


def _open(init: Source, sources: Sources) -> list[Checkpoint]:
    return open_alike([init, *(sources.values() if isinstance(sources, Mapping) else sources)])


def _from_start(
    method: str, checkpoints: Sequence[Checkpoint], shares: Mapping[str, float], trace: Sequence[Mapping[str, object]]
) -> Soup:
    """Return init + shares[layer] (mean of the rest - init); init: the first checkpoint."""
    count = len(checkpoints) - 1
    rows = {group: [1 - share, *([share / count] * count)] for group, share in shares.items()}
    return Soup(method, tuple(c.name for c in checkpoints), hashes(checkpoints), rows, trace=tuple(trace))


def stock_ratio(cosine: float, count: int) -> float:
    """Return t = K cos / (1 + (K - 1) cos), the Model Stock interpolation ratio for K models.

    cosine: of two updates (model - initialization). From initialization (0) to mean (1), t is the
    point closest to the centre of the models' distribution. A negative cosine gives 0.
    """
    return count * cosine / (1 + (count - 1) * cosine) if cosine > 0 else 0.0


def stock_ratios(init: State, states: Sequence[State]) -> dict[str, float]:
    """Return Model Stock's ratio t of each float tensor, from cosines of updates (model - init).

    The paper assumes that all pairs of models have the same cosine. With more than two models, the
    mean over pairs is used, as in mergekit's model_stock. A tensor that is unchanged in any model
    has t = 1. One block of each model is in memory at a time.
    """
    if len(states) < 2:
        raise ValueError(f"model_stock: {len(states)} model; an angle needs at least two models")
    keys = [key for key in init if averaged(entry(init, key))]
    ratios = {}
    for key, gram_KK in grams([init, *states], keys).items():
        updates_KK = from_first(gram_KK)
        changed_K = updates_KK.diagonal() > ROUNDING * gram_KK[0, 0]
        if not bool(changed_K.all()):
            ratios[key] = 1.0
            continue
        pairs_KK = cosines(updates_KK).triu(diagonal=1)
        ratios[key] = stock_ratio(float(pairs_KK.sum()) / math.comb(len(states), 2), len(states))
    return ratios


def depth_scales(names: Iterable[str], alpha: float, beta: float) -> dict[str, float]:
    """Return by layer the LiNeS scale lambda_l = alpha + beta (l - 1) / (L - 1) of block l of L.

    l counts the blocks in the order of `names`. As in the LiNeS code, tensors outside the blocks
    have alpha, but a head after the last block has lambda_L. ValueError for fewer than two blocks.
    """
    names = list(names)
    groups = list(dict.fromkeys(map(layer_of, names)))
    blocks = list(dict.fromkeys(map(layer_of, filter(is_block, names))))
    if len(blocks) < 2:
        raise ValueError(f"method lines: the tensor names have {len(blocks)} numbered layers; two are needed")
    scales, passed = {}, 0
    for group in groups:
        position = 0
        if group in blocks:
            position = passed
            passed += 1
        elif passed == len(blocks) and HEAD.search(f"{group}.weight"):
            position = len(blocks) - 1
        scales[group] = alpha + beta * position / (len(blocks) - 1)
    return {**scales, EVERYTHING: alpha}

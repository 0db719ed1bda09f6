"""Fisher averaging: a mean in which each model's parameters are weighted by Fisher information."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from modelsoups.checkpoints.states import State
from modelsoups.config.soup_options import ClassSeed, ExactFisher, FisherImages
from modelsoups.soup.coefficients import Soup
from modelsoups.soup.holdout import Holdout, Inputs, call_with, each
from modelsoups.soup.library import Sources, hashes, open_alike
from modelsoups.weights.state_dicts import EVERYTHING

FLOOR = 1e-6  # smallest Fisher information: where no model has any, all count equally


def fisher(
    sources: Sources,
    holdout: Holdout,
    *,
    images: FisherImages = 256,
    weights: Sequence[float] | None = None,
    exact: ExactFisher = False,
    seed: ClassSeed = 0,
) -> tuple[Soup, dict[str, Tensor]]:
    """Average as sum_i w_i F_i theta_i / sum_i w_i F_i (Matena and Raffel 2022, arXiv:2111.09832).

    F_i is the diagonal Fisher information of model i on the hold-out's first `images`, whose labels
    are not used; w_i are `weights`, equal by default. exact: use all C classes instead of one drawn
    for each image. Returns a Soup with coefficients w_i / sum_i w_i, for tensors that are no
    parameters, and the averaged parameters. An image costs each model one forward and one backward
    pass (exact: C backward); memory is five copies of one model's parameters. Raises ValueError for
    different tensor shapes, gradients that are not finite, and weights that are not above 0.

        chosen, merged = soup.fisher(["a.pt", "b.pt"], holdout)
        soup.mix(chosen, "soup.safetensors", statistics=merged)
    """
    checkpoints = open_alike(sources)
    row = [1.0] * len(checkpoints) if weights is None else [float(w) for w in weights]
    if len(row) != len(checkpoints) or not all(w > 0 for w in row):
        raise ValueError(f"fisher: weights={row}; expected {len(checkpoints)} numbers above 0")
    numerator: dict[str, Tensor] = {}
    denominator: dict[str, Tensor] = {}
    index_N = torch.arange(min(images, len(holdout)))
    for checkpoint, weight in zip(checkpoints, row, strict=True):
        state = dict(checkpoint)
        batches = (holdout.batch(index_B)[0] for index_B in index_N.split(holdout.batch_size))
        information = diagonal(holdout.model, state, batches, exact=exact, seed=seed)
        if not all(bool(torch.isfinite(f).all()) for f in information.values()):
            way_out = "leave the model out"
            raise ValueError(f"{checkpoint.name}: gradients contain NaN or infinity; {way_out}")
        for key, f in information.items():
            precision = f.double().clamp_min(FLOOR) * weight
            numerator[key] = numerator.get(key, 0) + precision * state[key].double()
            denominator[key] = denominator.get(key, 0) + precision
    merged = {key: (sum_ / denominator[key]).to(state[key].dtype) for key, sum_ in numerator.items()}
    names, shares = tuple(c.name for c in checkpoints), [w / sum(row) for w in row]
    trace = ({"images": len(index_N), "exact": exact, "seed": seed},)
    return Soup("fisher", names, hashes(checkpoints), {EVERYTHING: shares}, trace=trace), merged


def diagonal(
    model: nn.Module, state: State, batches: Iterable[Inputs], *, exact: bool = False, seed: int = 0
) -> dict[str, Tensor]:
    """Return F = E_x E_{y ~ p(y|x)} (d log p(y|x) / d theta)^2 by parameter in float32 (eq. 4).

    For each input, one y is drawn from the prediction p, as Matena and Raffel do for many classes;
    with `exact`, all classes are summed, weighted by p. Raises ValueError if there are no inputs.
    """
    generator = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    moved = {key: tensor.detach().to(device) for key, tensor in state.items()}
    names = [key for key, _ in model.named_parameters()]
    weights = [moved[key].requires_grad_() for key in names]
    total, count = [torch.zeros_like(w, dtype=torch.float32) for w in weights], 0
    for inputs_B in batches:
        for one in each(inputs_B):
            with torch.enable_grad():
                log_p_C = call_with(model, moved, one)[0].log_softmax(dim=0)
            p_C = log_p_C.detach().exp()
            drawn = torch.multinomial(p_C.cpu(), 1, generator=generator).tolist()
            for c in range(len(p_C)) if exact else drawn:
                slopes = torch.autograd.grad(log_p_C[c], weights, retain_graph=True, allow_unused=True)
                share = float(p_C[c]) if exact else 1.0
                for sum_, slope in zip(total, slopes, strict=True):
                    if slope is not None:
                        sum_.addcmul_(slope.float(), slope.float(), value=share)
            count += 1
    if not count:
        raise ValueError("fisher: there are no images; expected at least 1")
    return {key: (sum_ / count).cpu() for key, sum_ in zip(names, total, strict=True)}

"""The soup library: choose coefficients for checkpoints, then average these into one checkpoint.

    from modelsoups import soup

    chosen = soup.greedy(["a.safetensors", "b.pt", "hf-folder/"], soup.Holdout(model, loader))
    soup.mix(chosen, "soup.safetensors")

Letters of array names are axes: K models, N hold-out images, B images of a batch, C classes.
"""

from modelsoups.soup.batchnorm import reestimate
from modelsoups.soup.choosing import greedy, learned, mehl, pruned, radin, soce
from modelsoups.soup.ensembles import cache_logits, calibrated, ensemble, greedy_ensemble, learned_ensemble
from modelsoups.soup.fisher import fisher
from modelsoups.soup.from_initialization import lines, model_stock, wise_ft
from modelsoups.soup.holdout import Holdout
from modelsoups.soup.library import load, mix, mixed, uniform
from modelsoups.soup.on_base import on_base
from modelsoups.soup.trace import plot_trace
from modelsoups.soup.trajectories import trajectory

__all__ = [
    "Holdout",
    "cache_logits",
    "calibrated",
    "ensemble",
    "fisher",
    "greedy",
    "greedy_ensemble",
    "learned",
    "learned_ensemble",
    "lines",
    "load",
    "mehl",
    "mix",
    "mixed",
    "model_stock",
    "on_base",
    "plot_trace",
    "pruned",
    "radin",
    "reestimate",
    "soce",
    "trajectory",
    "uniform",
    "wise_ft",
]

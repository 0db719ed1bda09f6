"""The soup library, `from modelsoups import soup`; the pipeline's stage of that name is `modelsoups.soup.stage`."""

from modelsoups.core.batchnorm import reestimate
from modelsoups.core.holdout import Holdout
from modelsoups.soup.choosing import greedy, learned, pruned
from modelsoups.soup.geometry import lines, model_stock, wise_ft
from modelsoups.soup.library import load, mix, mixed, uniform

__all__ = [
    "Holdout",
    "greedy",
    "learned",
    "lines",
    "load",
    "mix",
    "mixed",
    "model_stock",
    "pruned",
    "reestimate",
    "uniform",
    "wise_ft",
]

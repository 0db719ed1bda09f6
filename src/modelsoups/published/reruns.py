"""How far a correct rerun of the released models may be from their published accuracies.

The model of noise has two parts, which are independent of each other:

- Binomial: other kernels change the correctness of a share DISAGREEMENT of the images. Each such image
  is gained or lost with equal chance, so the accuracy on N images has the standard error
  sqrt(DISAGREEMENT / N).
- Hardware: other image decoders and libraries shift all images of a set alike. HARDWARE has the
  standard deviation of this shift by data set; it is 0 for data sets that are not in it.

The constants come from two public reruns of the authors' code on other machines: of all 72 models on six
sets, and of ten models on V2, R, Sketch and A. Their root mean square differences were 0.035 points on
the hold-out, 0.025 on ImageNet, 0.066 on V2, 0.059 on R (0.081 for the ten models), 0.060 on Sketch,
0.181 on ObjectNet and 0.081 on A. Without the hardware part, that is 0.3% to 0.5% of the images on the
hold-out, ImageNet, V2 and A. ObjectNet's large images are shrunk most, which may be why it has most noise.
"""

import math
from collections.abc import Mapping

from scipy import stats as scipy_stats

DISAGREEMENT = 0.005  # share of the images
HARDWARE = {"r": 0.07, "sketch": 0.07, "objectnet": 0.18}  # percentage points
FALSE_ALARM = 0.01  # chance that `verify` rejects a correct rerun of all 72 models on all seven sets
IMAGES = {
    "holdout": 26_000,
    "val": 50_000,
    "v2": 10_000,
    "r": 30_000,
    "sketch": 50_889,
    "objectnet": 18_574,
    "a": 7_500,
}
RELABELLED = {"real": 46_837}  # images of val with other labels; the authors have no accuracies on them


def deviation(dataset: str) -> float:
    """Return the standard deviation of a correct rerun's accuracy, in percentage points."""
    binomial = 100 * math.sqrt(DISAGREEMENT / (IMAGES | RELABELLED)[dataset])
    return math.hypot(binomial, HARDWARE.get(dataset, 0.0))


def tolerance(dataset: str, models: int, sets: int = len(IMAGES)) -> float:
    """Return the largest difference, in percentage points, that noise explains (Bonferroni).

    models: how many models there are on the data sets. sets: how many data sets there are. All their
    accuracies are within the tolerance with a chance of at least 1 - FALSE_ALARM / 2.
    """
    comparisons = models * sets
    return float(scipy_stats.norm.isf(FALSE_ALARM / 2 / comparisons / 2)) * deviation(dataset)


def distance(differences: Mapping[str, float]) -> float:
    """Return a model's sum of squared differences, in standard deviations (chi-squared distributed).

    differences: measured minus published accuracy by data set, in percentage points.
    """
    return math.fsum((value / deviation(name)) ** 2 for name, value in differences.items())


def largest_distance(sets: int, models: int) -> float:
    """Return the largest `distance` that noise explains for one of `models` models on `sets` sets."""
    return float(scipy_stats.chi2.isf(FALSE_ALARM / 2 / models, sets))

"""Projection of a model's logits to the classes of a data set, such as ObjectNet's 113.

Legend: N images, C classes of the model, D classes of the data set.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

PROJECTIONS = {"subset": "indices", "groups": "groups"}  # kind -> its key with the classes


def project(logits_NC: Tensor, projection: Mapping[str, Any] | None) -> Tensor:
    """Return the logits over the data set's classes (N, D), in the order of its labels.

    None leaves the logits unchanged. {"kind": "subset", "indices": [...]} selects these columns
    (ImageNet-R and -A: 200 classes). {"kind": "groups", "groups": [[...], ...]} takes the largest
    logit of each group (ObjectNet). ValueError for any other form, an empty group, or an unknown
    class.
    """
    if projection is None:
        return logits_NC
    kind = projection.get("kind")
    if kind not in PROJECTIONS or set(projection) != {"kind", PROJECTIONS[kind]}:
        forms = " or ".join(f'{{"kind": "{k}", "{v}": [...]}}' for k, v in PROJECTIONS.items())
        raise ValueError(f"projection kind={kind} with keys {', '.join(sorted(projection))}; expected {forms}")
    classes = logits_NC.shape[1]
    if kind == "subset":
        return logits_NC[:, _columns(projection["indices"], classes, "subset")]
    groups_ND = []
    for i, group in enumerate(projection["groups"]):
        groups_ND.append(logits_NC[:, _columns(group, classes, f"group {i}")].amax(dim=1))
    if not groups_ND:
        raise ValueError("projection has no groups; expected a group of classes for each label")
    return torch.stack(groups_ND, dim=1)


def _columns(indices: Sequence[int], classes: int, where: str) -> list[int]:
    """Return the class indices as a list; ValueError if empty, repeated or not below `classes`."""
    columns = list(map(int, indices))
    if not columns:
        raise ValueError(f"projection {where} is empty; expected at least one class")
    if len(set(columns)) < len(columns):
        expected = "each class at most once"
        raise ValueError(f"projection {where} lists a class twice; expected {expected}")
    for i in columns:
        if not 0 <= i < classes:
            raise ValueError(f"projection {where}: class {i} is out of range; the model has classes 0 to {classes - 1}")
    return columns

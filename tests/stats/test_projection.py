"""Projection to a data set's own classes, by hand."""

import pytest
from test_scores import LOGITS

from modelsoups.stats.projection import project


def test_project_by_hand() -> None:
    """Columns 3 and 0; the largest of columns 0 and 2, of column 3 alone, of columns 1 and 3."""
    assert project(LOGITS, None) is LOGITS
    assert project(LOGITS, {"kind": "subset", "indices": [3, 0]}).tolist() == [[4.0, 1.0], [5.0, 8.0]]
    groups = {"kind": "groups", "groups": [[0, 2], [3], [3, 1]]}
    assert project(LOGITS, groups).tolist() == [[3.0, 4.0, 9.0], [8.0, 5.0, 7.0]]


@pytest.mark.parametrize(
    ("projection", "message"),
    [
        ({"kind": "mean", "indices": [0]}, 'kind=mean .*"kind": "subset"'),
        ({"indices": [0]}, "kind=None"),
        ({"kind": "subset", "groups": [[0]]}, "kind=subset with keys groups, kind"),
        ({"kind": "subset", "indices": []}, "subset is empty"),
        ({"kind": "subset", "indices": [0, 4]}, "subset: class 4 is out of range; the model has classes 0 to 3"),
        ({"kind": "subset", "indices": [-1]}, "class -1 is out of range"),
        ({"kind": "subset", "indices": [1, 1]}, "lists a class twice"),
        ({"kind": "groups", "groups": [[0], []]}, "group 1 is empty"),
        ({"kind": "groups", "groups": [[0], [1, 7]]}, "group 1: class 7 is out of range"),
        ({"kind": "groups", "groups": []}, "no groups"),
    ],
)
def test_project_refuses(projection: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        project(LOGITS, projection)

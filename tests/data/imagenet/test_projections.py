"""Label spaces of the test sets: the classes of R and A, and ObjectNet's 113 folders."""

from modelsoups.data.imagenet import projections


def test_subsets_have_the_classes_of_the_official_lists():
    for name in ("r", "a"):
        assert len(set(projections.subset(name))) == 200
        assert projections.projection(name) == {"kind": "subset", "indices": list(projections.subset(name))}
    assert projections.subset("r")[:3] == (1, 2, 4)
    assert projections.subset("a")[:3] == (6, 11, 13)


def test_objectnet_scores_113_of_313_folders_over_125_classes():
    assert len(projections.objectnet()) == 313
    assert len(projections.scored_folders()) == 113
    groups = projections.projection("objectnet")["groups"]
    assert len(groups) == 113
    assert len({c for group in groups for c in group}) == 125

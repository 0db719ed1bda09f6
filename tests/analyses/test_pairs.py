"""Which pairs of models Figures 3, 4 and K.1 show."""

from types import SimpleNamespace

from modelsoups.analyses.pairs import moderate, single_differences, spread


def test_rates_as_high_as_the_paper_leaves_out_are_left_out():
    """1e-4 beside 3e-5, and the miniature's 3.3e-3 beside 1e-3; 3e-5 and 1e-3 themselves stay."""
    for rate, high in ((3e-5, 1e-4), (1e-3, 3.3e-3)):
        bench = SimpleNamespace(settings=SimpleNamespace(rates=[rate]))
        assert moderate(bench, rate)
        assert not moderate(bench, high)


def test_few_of_many_are_evenly_spaced():
    assert spread(range(11), 3) == [0, 5, 10]
    assert spread("ab", 3) == ["a", "b"]


def test_pairs_differ_in_one_hyperparameter(bench):
    pairs = single_differences(bench, ["standard_zs", "seeds"])
    named = {(one.name, two.name): kind for one, two, kind in pairs}
    assert named["standard_zs/000", "standard_zs/001"] == "learning rate"
    assert named["standard_zs/000", "standard_zs/002"] == "seed"
    assert ("standard_zs/001", "standard_zs/002") not in named

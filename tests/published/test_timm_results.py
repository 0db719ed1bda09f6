"""The accuracies that timm publishes, as the package has them."""

import pytest

from modelsoups.published import tables, timm_results
from modelsoups.published.timm_results import SAME_CLIP, SHIFTED, TEST, baseline, timm_models


def test_the_models_and_their_accuracies():
    models = timm_models()
    assert len(models) == 1266
    assert all(0 < share < 1 for m in models.values() for share in m.accuracy.values())
    assert [n for n, m in models.items() if set(m.accuracy) != {TEST, *SHIFTED}] == [timm_results.ADVERSARY]
    best = max(models.values(), key=lambda m: m.accuracy[TEST])
    assert (best.name, best.accuracy[TEST]) == (
        "eva02_large_patch14_448.mim_m38m_ft_in22k_in1k",
        pytest.approx(0.90056),
    )


def test_a_single_fine_tune_of_the_same_clip_is_better_than_the_papers_soup_on_imagenet_and_worse_under_shift():
    percent = {name: round(100 * share, 3) for name, share in timm_models()[SAME_CLIP].accuracy.items()}
    assert percent == {"val": 81.944, "v2": 70.73, "r": 55.847, "sketch": 45.033, "a": 22.747, "real": 87.185}
    greedy = {name: 100 * share for name, share in tables.released_rows()["greedy"].items()}
    assert percent["val"] > greedy["val"]
    assert all(percent[name] < greedy[name] for name in ("r", "sketch", "a"))


def test_the_baseline_on_imagenet_a_begins_at_the_resnet_50_it_was_chosen_against():
    assert {name: len(baseline(name)) for name in SHIFTED} == {
        "v2": 1266,
        "r": 1266,
        "sketch": 1266,
        "a": 1104,
        "real": 1266,
    }
    least = timm_models()[timm_results.ADVERSARY].accuracy[TEST]
    assert least == pytest.approx(0.76156)
    assert min(m.accuracy[TEST] for m in baseline("a")) >= least
    assert timm_results.ADVERSARY not in {m.name for m in baseline("a")}

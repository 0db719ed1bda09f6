"""A part of a set is looked at as the whole is, and its logits are cached."""

import numpy as np
import pytest
import torch

from modelsoups.analyses.images import Images
from modelsoups.experiment.ingredients import load_weights


def test_a_part_of_a_test_set_is_spread_over_it(bench):
    one = bench.ingredients("random")[0]
    part, whole = bench.logits(one, "v2"), bench.whole().logits(one, "v2")
    picks = np.linspace(0, 95, 48).round().astype(int)
    assert (part.logits_NC == whole.logits_NC[picks]).all()
    assert (part.labels_N == whole.labels_N[picks]).all()
    assert len(bench.logits(one, bench.holdout).labels_N) == len(bench.images.dataset(bench.holdout))


def test_a_part_is_evaluated_as_the_whole_is_and_cached(bench, tmp_path):
    one = bench.ingredients("standard_lp")[0]
    whole_NC = bench.experiment.logits.forward("v2", load_weights(one))
    part = bench.logits(one, "v2")
    torch.testing.assert_close(part.logits_NC, whole_NC[bench.images.positions("v2")], rtol=1e-5, atol=1e-4)
    assert bench.experiment.logits.path("v2", one.sha256, 48).exists()
    assert bench.images.is_cached(one, "v2")


def test_some_of_a_sets_images_are_evaluated_as_all_of_them_are(bench):
    state = load_weights(bench.ingredients("random")[0])
    every_NC = bench.experiment.logits.forward(bench.holdout, state)
    of_N = torch.arange(len(every_NC)) % 3 == 1
    some_nC = bench.experiment.logits.forward(bench.holdout, state, of_N)
    torch.testing.assert_close(some_nC, every_NC[of_N], rtol=1e-5, atol=1e-4)


def test_a_damaged_file_of_the_cache_is_named(bench):
    one = bench.ingredients("standard_lp")[1]
    whole = bench.experiment.logits.path("v2", one.sha256)
    path = whole if whole.exists() else bench.experiment.logits.path("v2", one.sha256, 48)
    content = path.read_bytes()
    path.write_bytes(content[:20])
    try:
        with pytest.raises(ValueError, match=f"{path.name} is damaged"):
            Images(bench.experiment).logits(one, "v2")
    finally:
        path.write_bytes(content)

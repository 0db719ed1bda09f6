"""The selection of IconNet-A."""

from __future__ import annotations

from modelsoups.miniature import adversarial, sets


def test_a_is_a_selection_and_seeds_choose_within_it():
    kept_CN = adversarial.kept()
    assert kept_CN.shape == (adversarial.CANDIDATES, sets.CHUNK)
    assert 0.05 < kept_CN.mean() < 0.6
    assert all(kept_CN[chunk, place] for chunk, place in adversarial.order(100))
    assert len(set(adversarial.order(100))) == sets.SETS["a"].count
    assert set(adversarial.order(100)) != set(adversarial.order(101))

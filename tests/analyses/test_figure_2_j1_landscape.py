"""Landscapes pass through the three models, and the best of a plane is judged on images that did not choose it."""


def test_landscapes_pass_through_the_three_models(bench, rows_of):
    rows = [r for r in rows_of("figure_2") if "landscape" in r]
    assert len({r["landscape"] for r in rows}) == 3
    start = next(r for r in rows if r["model"] == "theta_0")
    assert start["test_error"] == 1 - bench.individual(bench.start("standard_zs"))["test"].accuracy
    assert start["train_loss"] > 0
    assert [r["model"] for r in rows[:5]] == ["theta_0", "theta_1", "theta_2", "middle", None]

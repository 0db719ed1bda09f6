"""The report from a hand-made Evidence: numbers worked out by hand, the verdict rule, escaping, a real browser."""

import json

import numpy as np
import pytest

from modelsoups.recipes.recipe import Recipe
from modelsoups.report import claims, contents, figures, page, sections, tables
from modelsoups.report.measure import Evidence, Row, SetInfo
from modelsoups.report.numbers import MEAN, Numbers, p_value, percent
from modelsoups.soup.coefficients import Soup

NASTY = "<script>alert(1)</script> & $x_1$ | **bold** %"
SHIFTS = ["v2", "r"]


def correct(n, k):
    """The first k of n images right."""
    return np.arange(n) < k


def row(name, test, v2, r, kind="soup", **more):
    return Row(name, kind, {"holdout": correct(50, test // 2), "test": correct(100, test), "v2": correct(10, v2),
                            "r": correct(20, r)}, **more)  # fmt: skip


def recipe(lr):
    return Recipe(lr, 0.1, 4, 0.0, 0.0, "minimal", 0, 64, 40, 1.0)


def evidence(**changes):
    soup = Soup("greedy", ("000", "001"), ("a" * 64, "b" * 64), {"*": [0.5, 0.5]},
                trace=({"ingredient": "000", "correct": 30, "n": 50, "kept": True, "best": 30},))  # fmt: skip
    individuals = {"000": row("000", 60, 5, 8, "individual", recipe=recipe(1e-4)),
                   "001": row("001", 50, 4, 6, "individual", recipe=recipe(1e-3))}  # fmt: skip
    rows = {
        "initialization": row("initialization", 40, 5, 10, "initialization"),
        "best": row("best", 60, 5, 8, "individual"),
        "second_best": row("second_best", 50, 4, 6, "individual"),
        "uniform": row("uniform", 58, 6, 9),
        "greedy": row("greedy", 70, 6, 9, soup=soup),
        "greedy_random_0": row("greedy_random_0", 60, 6, 9),
        "greedy_random_1": row("greedy_random_1", 64, 6, 11),
        "ensemble": row("ensemble", 66, 5, 9, "ensemble", inference=2),
        "wise_ft_best_0.5": row("wise_ft_best_0.5", 55, 7, 12, "interpolation"),
    }
    sets = [SetInfo("holdout", "Hold", "holdout", 50), SetInfo("test", "Test", "test", 100),
            SetInfo("v2", "V2", "shift", 10), SetInfo("r", "R", "shift", 20)]  # fmt: skip
    curve = {k: {m: rows[m] for m in ("best", "uniform", "greedy", "ensemble")} for k in (1, 2)}
    fields = {"name": "hand", "sets": sets, "rows": rows, "individuals": individuals, "curve": curve, "failed": {},
              "contact": {"Test": np.zeros((3, 4, 4, 3), np.uint8)}, "timings": {"prepare": 1.5},
              "provenance": {}}  # fmt: skip
    return Evidence(**{**fields, **changes})


def test_accuracies_and_the_mean_of_shifts_are_as_worked_out_by_hand():
    numbers = Numbers.of(evidence())
    greedy = numbers.rows["greedy"]
    result = greedy.results["test"]
    assert (result.correct, result.n, result.accuracy) == (70, 100, 0.7)
    # Wilson, 70 of 100, z = 1.959964: (0.7 + z2/200 -+ z sqrt(0.21/100 + z2/40000)) / (1 + z2/100)
    # = (0.719207 -+ 1.959964 * 0.0468619) / 1.038415
    assert (result.low, result.high) == pytest.approx((0.60415, 0.78105), abs=1e-5)
    assert numbers.shift_mean(greedy) == pytest.approx((6 / 10 + 9 / 20) / 2)


def test_greedy_against_best_is_paired():
    test, mean = Numbers.of(evidence()).headline
    # the 10 images from 60 to 69 are greedy's alone: exact two-sided binomial 2 / 2**10
    assert test.value == pytest.approx(0.1)
    assert test.p == pytest.approx(2 / 1024)
    assert mean.value == pytest.approx((1 / 10 + 1 / 20) / 2)
    assert mean.on == MEAN


def test_table_3_has_the_papers_rows_with_the_papers_numbers_beside_ours():
    numbers = Numbers.of(evidence())
    lines = {line.row: line for line in tables.table_3(numbers)}
    assert lines["greedy"].paper == (81.03, 50.75)
    assert lines["initialization"].paper is None
    assert tables.cells(numbers, lines["greedy"]) == [
        "Greedy soup",
        "70.00",
        "52.50",
        "81.03",
        "50.75",
        "60.00",
        "45.00",
    ]
    # two orders: 60 and 64 (std sqrt(8)), means of shifts 52.5 and 57.5 (std 5/sqrt(2))
    assert tables.cells(numbers, lines["greedy_random"])[1:3] == ["62.00 (2.83)", "55.00 (3.54)"]
    rows = tables.rows_of(numbers)
    markdown = tables.markdown(rows).splitlines()
    assert "| Greedy soup | 70.00 | 52.50 | 81.03 | 50.75 | 60.00 | 45.00 |" in markdown
    assert r"Greedy soup & 70.00 & 52.50 & 81.03 & 50.75 & 60.00 & 45.00 \\" in tables.latex(rows)
    assert "Greedy soup,70.00,52.50,81.03,50.75,60.00,45.00" in tables.comma_separated(rows).splitlines()


def test_a_missing_shift_is_said_and_four_are_never_averaged_for_five():
    rows = evidence().rows
    rows["greedy"] = Row("greedy", "soup", {k: v for k, v in rows["greedy"].correct.items() if k != "r"})
    numbers = Numbers.of(evidence(rows={"greedy": rows["greedy"]}))
    assert numbers.shift_mean(numbers.rows["greedy"]) is None
    line = tables.table_3(numbers)[0]
    assert tables.cells(numbers, line) == [
        "Greedy soup",
        "70.00",
        "not available",
        "81.03",
        "50.75",
        "60.00",
        "not available",
    ]


@pytest.mark.parametrize(
    ("difference", "p", "says"),
    [(0.1, 0.049, "holds"), (-0.1, 0.049, "does not hold"), (0.1, 0.05, "not decided at this size"),
     (-0.1, 0.9, "not decided at this size"), (0.0, 1.0, "not decided at this size")],
)  # fmt: skip
def test_the_verdict_rule_at_its_edges(difference, p, says):
    assert claims.verdict(difference, p) == says


def test_claims_are_checked_for_the_rows_there_are():
    verdicts = {v.text: v for v in claims.check(Numbers.of(evidence()))}
    greedy = verdicts["The greedy soup beats the best individual model in distribution"]
    assert greedy.verdict == "holds"
    assert greedy.numbers.startswith("+10.00 [")
    assert not any("Learned" in text for text in verdicts)
    assert any("WiSE-FT" in text for text in verdicts)


def test_results_jsonl_holds_every_accuracy_and_nothing_of_time_or_place():
    lines = Numbers.of(evidence(provenance={"time": "now", "machine": "here"})).lines
    greedy = next(x for x in lines if x.get("row") == "greedy" and x["dataset"] == "test")
    assert (greedy["correct"], greedy["n"], greedy["kind"]) == (70, 100, "soup")
    soup = next(x for x in lines if x.get("soup") == "greedy")
    assert soup["coefficients"] == {"*": [0.5, 0.5]}
    text = json.dumps(lines)
    assert "now" not in text
    assert "here" not in text
    assert text == json.dumps(Numbers.of(evidence()).lines)


def test_numbers_are_formatted_in_one_way():
    assert percent(0.12345) == "12.35"
    assert percent(-0.001, True) == "-0.10"
    assert percent(None) == "not available"
    assert p_value(1e-9) == "p < 0.0001"
    assert p_value(0.0042) == "p = 0.0042"
    assert p_value(0.5) == "p = 0.50"


def html(numbers):
    verdicts = claims.check(numbers)
    with figures.style(math=False):
        sheet = figures.contact_sheet(evidence().contact)
        parts = contents.sections(numbers, verdicts, figures.save(sheet, "png"))
        figures.close(sheet)
        text = page.document(f"Model soups: {numbers.name}", parts)
        sections.close(parts)
    return text


def test_the_page_and_figures_are_the_same_twice():
    assert html(Numbers.of(evidence())) == html(Numbers.of(evidence()))


def test_names_appear_as_text_everywhere():
    base = evidence()
    sets = [SetInfo(s.name, NASTY, s.role, s.n) for s in base.sets]
    numbers = Numbers.of(
        evidence(name=NASTY, sets=sets, failed={"003": NASTY}, notes=[NASTY], provenance={"command": NASTY})
    )
    content = html(numbers)
    assert "<script>alert" not in content
    assert content.count("<script") == 1
    assert r"\$x\_1\$" in tables.latex(tables.rows_of(numbers))
    assert "$x_1$" in content  # in a figure too: a title, not mathematics
    header = tables.markdown(tables.rows_of(numbers)).splitlines()[0]
    assert r"\<script\>" in header
    assert r"\$x\_1\$ \| \*\*bold\*\*" in header


def test_a_set_that_is_not_available_leaves_the_rest_of_the_report(tmp_path):
    """Two of three shifts: each shown, no mean; figures say which mean they show."""
    base = evidence()
    numbers = Numbers.of(evidence(sets=[*base.sets, SetInfo("a", "A", "shift", 0)]))
    assert numbers.shift_mean(numbers.rows["greedy"]) is None
    assert [d.on for d in numbers.headline] == ["test"]
    rows = {row[0]: row for row in tables.rows_of(numbers)}
    assert rows["Greedy soup"][1:3] == ["70.00", "not available"]
    assert rows["Greedy soup"][5:] == ["60.00", "45.00", "not available"]
    verdicts = {v.text: v for v in claims.check(numbers)}
    under_shift = verdicts["The greedy soup beats the best individual model under shift"]
    assert (under_shift.verdict, under_shift.numbers) == ("not available", "2 of 3 shifts")
    assert verdicts["The greedy soup beats the best individual model in distribution"].verdict == "holds"
    with figures.style(math=False):
        figure = figures.figure_1(numbers)
        assert figure.axes[0].get_ylabel() == "Mean of 2 of the 3 shifts (others not available) (%)"
        figures.close(figure)
    assert "not available" in html(numbers)


def test_an_extra_set_averaged_over_classes_has_a_column_and_no_part_in_the_mean():
    weight_N = np.array([0.25, 0.25, 0.5])
    rows = {name: Row(name, r.kind, {**r.correct, "multi": np.array([True, False, True])}, r.soup, r.recipe,
                      weight={"multi": weight_N}) for name, r in evidence().rows.items()}  # fmt: skip
    sets = [*evidence().sets, SetInfo("multi", "Multilabel", "extra", 3)]
    numbers = Numbers.of(evidence(rows=rows, sets=sets))
    assert numbers.rows["greedy"].accuracy("multi") == 0.75
    assert tables.rows_of(numbers)[0][-1] == "Multilabel"
    assert {row[0]: row[-1] for row in tables.rows_of(numbers)}["Greedy soup"] == "75.00"
    assert numbers.shift_mean(numbers.rows["greedy"]) == pytest.approx((6 / 10 + 9 / 20) / 2)

"""The sections of an experiment's report: the same twice, with any names, with sets missing."""

from dataclasses import replace

from hand_report import NASTY, evidence, html, numbers_of

from modelsoups.report import claims, figure_1, figures, plotting, table_3, text_tables
from modelsoups.report.numbers import SetInfo


def test_the_page_and_figures_are_the_same_twice():
    assert html(numbers_of(evidence())) == html(numbers_of(evidence()))


def test_names_appear_as_text_everywhere():
    base = evidence()
    sets = [SetInfo(s.name, NASTY, s.role, s.n) for s in base.sets]
    numbers = numbers_of(
        evidence(name=NASTY, sets=sets, failed={"003": NASTY}, notes=[NASTY], provenance={"command": NASTY})
    )
    content = html(numbers)
    assert "<script>alert" not in content
    assert content.count("<script") == 1
    assert r"\$x\_1\$" in text_tables.latex(table_3.wide(numbers))
    assert "$x_1$" in content  # in a figure too: a title, not mathematics
    header = text_tables.markdown(table_3.wide(numbers)).splitlines()[0]
    assert r"\<script\>" in header
    assert r"\$x\_1\$ \| \*\*bold\*\*" in header


def test_a_set_that_is_not_available_leaves_the_rest_of_the_report(tmp_path):
    """Two of three shifts: each shown, no mean; figures say which mean they show."""
    base = evidence()
    numbers = numbers_of(evidence(sets=[*base.sets, SetInfo("a", "A", "shift", 0)]))
    assert numbers.rows["greedy"].shift_mean is None
    assert [d.on for d in numbers.headline] == ["test"]
    rows = {row[0]: row for row in table_3.wide(numbers)}
    assert rows["Greedy soup"][1:3] == ["70.00", "not available"]
    assert rows["Greedy soup"][-3:] == ["60.00", "45.00", "not available"]
    verdicts = {v.text: v for v in claims.check(numbers)}
    under_shift = verdicts["The greedy soup beats the best individual model under shift"]
    assert (under_shift.verdict, under_shift.numbers) == ("not available", "2 of 3 shifts")
    assert verdicts["The greedy soup beats the best individual model in distribution"].verdict == "holds"
    with plotting.style(math=False):
        figure = figure_1.figure_1(numbers)
        assert figure.axes[0].get_ylabel() == "Mean of 2 of the 3 shifts (others not available) (%)"
    assert "not available" in html(numbers)


def test_images_without_shifts_have_no_columns_and_claims_of_shifts():
    """As class folders with data.shifts=[]: the figures show the hold-out against the test set."""
    base = evidence()
    rows = {}
    for name, row in base.rows.items():
        rows[name] = replace(row, outcomes={k: row.outcomes[k] for k in ("holdout", "test")})
    curve = {k: {m: rows[m] for m in by_method} for k, by_method in base.curve.items()}
    individuals = {"000": replace(base.individuals["000"], outcomes=rows["best"].outcomes)}
    numbers = numbers_of(evidence(rows=rows, curve=curve, individuals=individuals, sets=base.sets[:2]))
    assert table_3.wide(numbers)[0] == ["Method", "Test (test)", "Gain: test", "Paper's gain: test"]
    assert table_3.without_sets(numbers)[0] == ["Method", "Test (test)", "Gain", "Paper's gain"]
    assert table_3.summary(numbers).splitlines()[2].split()[-3:] == ["gain", "paper's", "gain"]
    assert all("shift" not in v.text for v in claims.check(numbers))
    with plotting.style(math=False):
        axes = figure_1.figure_1(numbers).axes[0]
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("Hold accuracy (top-1, %)", "Test\naccuracy (top-1, %)")
        assert len(figures.figure_b1(numbers).axes) == 1
    page = html(numbers)
    assert "not available" not in page
    assert "Dist. shifts" not in page
    assert ">Mean of shifts<" not in page


def test_the_page_states_the_rule_of_the_protocol():
    assert "Each joins unless the soup gets worse: 1 of 1 joined" in html(numbers_of(evidence()))
    strict = evidence(provenance={"config": {"protocol": "released", "data": {"library": "folders"}}})
    assert "Each joins if the soup gets better: 1 of 1 joined" in html(numbers_of(strict))

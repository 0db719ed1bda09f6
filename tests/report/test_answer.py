"""The answer in words, worked out by hand."""

from dataclasses import replace

from hand_report import SHIFTS, evidence, numbers_of, row

from modelsoups.report import answer
from modelsoups.report.numbers import Difference


def test_the_answer_names_the_gain_its_interval_and_who_scores_higher():
    numbers = numbers_of(evidence())
    test, shift, lower = answer.answer(numbers)
    d = numbers.difference("greedy", "best", "test")
    begin = (
        "On Test, the greedy soup, an average of 2 of the 2 models, scores 70.00% and the best individual model 60.00%"
    )
    assert test == f"{begin}: a gain of 10.00 points (95% interval {100 * d.low:+.2f} to {100 * d.high:+.2f})."
    assert shift.startswith("On average over 2 sets under distribution shift, the greedy soup scores 52.50%")
    assert "no clear difference, +7.50 points" in shift
    # V2 and R: 5 of 10 and 10 of 20; 6 of 10 and 9 of 20; 5 of 10 and 9 of 20
    assert lower == (
        "Under shift, the initialization (50.00%), the uniform soup (52.50%) and the ensemble of 2 models (47.50%) "
        "score no higher than the greedy soup."
    )
    rows = {**evidence().rows, "ensemble": row("ensemble", 66, 9, 18, "ensemble", inference=2)}
    sentences = answer.answer(numbers_of(evidence(rows=rows)))
    assert sentences[2] == "Under shift, the ensemble of 2 models (90.00%) scores higher than the greedy soup."


def test_a_greedy_soup_of_one_model_is_said_to_be_that_model():
    """And no "-0.00 [-0.00, -0.00]"."""
    base = evidence()
    best = base.rows["best"]
    alone = replace(base.rows["greedy"].soup, ingredients=("000",), hashes=("a" * 64,), coefficients={"*": [1.0]})
    greedy = replace(best, name="greedy", kind="soup", soup=alone)
    numbers = numbers_of(evidence(rows={**base.rows, "greedy": greedy}))
    said = answer.answer(numbers)
    assert said[0] == (
        "No: the greedy soup is the best individual model alone, because adding another model never helped on the "
        "hold-out."
    )
    assert "0.00 points" not in " ".join(said)


def test_differences_in_words():
    assert answer.gained(Difference("a", "b", "test", -0.02, -0.03, -0.01, 0.001)) == (
        "a loss of 2.00 points (95% interval -3.00 to -1.00)"
    )
    assert answer.gained(Difference("a", "b", "test", -0.0, -0.0, 0.0, 1.0)) == "no difference on any example"
    assert "untested" in answer.gained(Difference("a", "b", "test", 0.0065))


def test_one_shift_has_its_own_name():
    base = evidence()
    sets = [s for s in base.sets if s.name != "r"]
    rows = {k: replace(r, outcomes={n: o for n, o in r.outcomes.items() if n != "r"}) for k, r in base.rows.items()}
    curve = {k: {m: rows[m] for m in by} for k, by in base.curve.items()}
    individuals = {k: row(k, 60, 5, 8, "individual") for k in base.individuals}
    numbers = numbers_of(evidence(sets=sets, rows=rows, curve=curve, individuals=individuals))
    assert numbers.shifts_title == "V2"
    assert "On V2 (distribution shift), the greedy soup scores 60.00%" in answer.answer(numbers)[1]
    assert len(SHIFTS) == 2

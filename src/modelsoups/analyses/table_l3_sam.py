"""Models fine-tuned with sharpness-aware minimization (SAM), and their soups (Table L.3)."""

from modelsoups.analyses.analysis import PAPER, Analysis, comparison
from modelsoups.analyses.appendix_l import beside_paper, line, made
from modelsoups.analyses.bench import Bench
from modelsoups.analyses.members import Unavailable, models_of
from modelsoups.analyses.points import Measures
from modelsoups.analyses.rows import Rows


def _rows(bench: Bench) -> Rows:
    bench = bench.whole()
    members = bench.pool("sam")
    bench.evaluate(models_of(members))
    recipe = next((m.ingredient.recipe for m in members if m.ingredient.recipe and m.ingredient.recipe.sam), None)
    if recipe is None:
        raise Unavailable("the analysis needs a model with recipe.sam above 0 in the pool sam (analyse.pools.sam)")
    zero = {"lr": recipe.lr, "aug": recipe.aug, "seed": 0}
    one = {**zero, "seed": 1}
    sam_zero, sam_one = {**zero, "sam": recipe.sam}, {**one, "sam": recipe.sam}
    lines = {
        "Vanilla fine-tuning, seed 0": line(bench, "individual", zero),
        "Vanilla fine-tuning, seed 1": line(bench, "individual", one),
        "SAM fine-tuning, seed 0": line(bench, "individual", sam_zero),
        "SAM fine-tuning, seed 1": line(bench, "individual", sam_one),
        "Soup of vanilla fine-tuning, seeds 0 and 1": line(bench, "soup", zero, one),
        "Soup of SAM fine-tuning, seeds 0 and 1": line(bench, "soup", sam_zero, sam_one),
        "Soup of vanilla and SAM fine-tuning, seed 0": line(bench, "soup", zero, sam_zero),
    }
    rows, found = made(bench, lines, 0, recipe.lr)
    if len(found) == len(lines):
        for said, pairs in _claimed(*found.values()).items():
            rows.append(comparison(said, bench, pairs, said=said))
    return rows


def _claimed(
    zero: Measures, one: Measures, sam_zero: Measures, sam_one: Measures, *soups: Measures
) -> dict[str, list[tuple[Measures, Measures]]]:
    """Return each claim that models a are more accurate than models b, with its pairs (a, b)."""
    plain, sam, mixed = soups
    gains, losses = [(plain, zero), (plain, one)], [(sam_zero, sam), (sam_one, sam)]
    difference = "A soup gains less over its models with SAM than with vanilla fine-tuning (shown: half the difference)"
    return {
        "SAM improves over vanilla fine-tuning": [(sam_zero, zero), (sam_one, one)],
        "The soup of two SAM models is better than the two on average": [(sam, sam_zero), (sam, sam_one)],
        "The soup of two vanilla models is better than the two on average": gains,
        difference: gains + losses,
        "The soup of a vanilla and a SAM model beats that of two vanilla ones": [(mixed, plain)],
        "The soup of a vanilla and a SAM model beats that of two SAM ones": [(mixed, sam)],
    }


TABLE_L3 = Analysis(**PAPER["table_L3"], rows=_rows, table=beside_paper)

"""Sharpness-aware minimization and its soups (Table L.3)."""

import functools

from modelsoups.analyses.analysis import Analysis, comparison
from modelsoups.analyses.appendix_l import beside_paper, claims, line, made
from modelsoups.analyses.bench import Bench, Measures
from modelsoups.analyses.members import Unavailable
from modelsoups.analyses.rows import Rows

VANILLA = ("Vanilla fine-tuning, seed 0", "Vanilla fine-tuning, seed 1")
SAM = ("SAM fine-tuning, seed 0", "SAM fine-tuning, seed 1")
TWO_VANILLA = "Soup of vanilla fine-tuning, seeds 0 and 1"
TWO_SAM = "Soup of SAM fine-tuning, seeds 0 and 1"
MIXED = "Soup of vanilla and SAM fine-tuning, seed 0"


def _rows(bench: Bench) -> Rows:
    members = bench.pool("sam")
    bench.evaluate([m.ingredient for m in members])
    recipes = [m.ingredient.recipe for m in members]
    recipe = next((r for r in recipes if r is not None and r.sam), None)
    if recipe is None:
        raise Unavailable("the pool sam has no model with recipe.sam above 0")
    same = {"lr": recipe.lr, "aug": recipe.aug}
    vanilla = [{**same, "seed": seed} for seed in (0, 1)]
    sam = [{**one, "sam": recipe.sam} for one in vanilla]
    lines = dict(zip((*VANILLA, *SAM), (line(bench, "individual", one) for one in vanilla + sam), strict=True))
    lines[TWO_VANILLA] = line(bench, "soup", *vanilla)
    lines[TWO_SAM] = line(bench, "soup", *sam)
    lines[MIXED] = line(bench, "soup", vanilla[0], sam[0])
    rows, found = made(bench, lines, 0, recipe.lr)
    if len(found) == len(lines):
        for said, pairs in _claimed(found).items():
            rows.append(comparison(said, bench, pairs, said=said))
    return rows


def _claimed(found: dict[str, Measures]) -> dict[str, list[tuple[Measures, Measures]]]:
    """Each claim with the pairs (a, b) of which it says that a is better than b."""
    vanilla, sam = ([found[label] for label in labels] for labels in (VANILLA, SAM))
    two_vanilla, two_sam, mixed = found[TWO_VANILLA], found[TWO_SAM], found[MIXED]
    gains = [(two_vanilla, one) for one in vanilla]
    losses = [(one, two_sam) for one in sam]
    return {
        "SAM improves over vanilla fine-tuning": list(zip(sam, vanilla, strict=True)),
        "The soup of two SAM models improves over the two": [(two_sam, one) for one in sam],
        "The soup of two vanilla models improves over the two": gains,
        "Souping gains less with SAM than with vanilla fine-tuning (half of the difference)": gains + losses,
        "The soup of a vanilla and a SAM model beats that of two vanilla ones": [(mixed, two_vanilla)],
        "The soup of a vanilla and a SAM model beats that of two SAM ones": [(mixed, two_sam)],
    }


TABLE_L3 = Analysis(
    "table_L3",
    "Table L.3. Sharpness-aware minimization",
    "appendix L",
    "SAM improves accuracy over vanilla fine-tuning; souping two models trained with SAM improves over either, by less "
    "than for vanilla fine-tuning; souping one of each is better than two of a kind.",
    _rows,
    functools.partial(claims, source="Table L.3"),
    table=beside_paper,
)

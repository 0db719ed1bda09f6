"""The paper's claims, each with this run's numbers and a verdict.

The claim that method a is better than method b "holds" if accuracy a - b is positive with p < 0.05,
"does not hold" if it is negative with p < 0.05, and is "not decided at this size" otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from modelsoups.disk import storage
from modelsoups.disk.paths import ASSETS
from modelsoups.report.numbers import MEAN, Difference, Numbers, interval, p_value, percent

ALPHA = 0.05
HOLDS, FAILS, OPEN = "holds", "does not hold", "not decided at this size"
CLASSES = {HOLDS: "holds", FAILS: "fails"}  # in the style sheet; every other verdict is "open"
UNKNOWN, UNTESTED = "not available", "not tested"


@dataclass(frozen=True)
class Claim:
    """A claim of the paper: row a of Table 3 is better than row b. source: where it claims this."""

    text: str
    a: str
    b: str
    on: str
    source: str


CLAIMS = [Claim(**line) for line in storage.read_jsonl(ASSETS / "published" / "claims.jsonl")]
TEXT_CLAIMS = [Claim(**line) for line in storage.read_jsonl(ASSETS / "published" / "claims_text.jsonl")]
# Not a claim of the paper. It is tested because interpolating one model is cheaper than training
# many.
ASIDE = "WiSE-FT of the best individual model beats the greedy soup under shift"


@dataclass(frozen=True)
class Verdict:
    """A claim and whether this run confirms it. above: whether the difference has the claimed sign.

    p: two-sided p-value. holm: p corrected for the number of claims on the page (Holm's method).
    said: what this run found, as a plain sentence.
    """

    text: str
    source: str
    verdict: str
    numbers: str
    p: float | None = None
    above: bool = True
    holm: float | None = None
    said: str = ""

    @property
    def among_all(self) -> str:
        """The verdict by the corrected p-value `holm`, or `verdict` if there is no such p-value."""
        if self.holm is None:
            return self.verdict
        return verdict(1 if self.above else -1, self.holm)


def verdict(difference: float, p: float) -> str:
    """Return HOLDS, FAILS or OPEN (p >= 0.05); difference: above 0 if it is as claimed."""
    if p >= ALPHA or difference == 0:
        return OPEN
    return HOLDS if difference > 0 else FAILS


def check(numbers: Numbers) -> list[Verdict]:
    """Return a verdict on each claim about rows of this run; UNTESTED without per-image results.

    Claims about shifts are left out if the run has none.
    """
    rows, claims = numbers.rows, list(CLAIMS)
    for name in rows:
        if name.startswith("wise_ft_best"):
            text = f"{ASIDE} ({name.rsplit('_', 1)[1]})"
            claims.append(Claim(text, name, "greedy", MEAN, "appendix D"))
    if numbers.config.get("task") == "text":
        claims = list(TEXT_CLAIMS)
    if not numbers.shifts:
        claims = [claim for claim in claims if claim.on != MEAN]
    found = [_construction(numbers)] if "greedy" in rows and "best" in rows else []
    return found + [_verdict(numbers, claim) for claim in claims if claim.a in rows and claim.b in rows]


def _construction(numbers: Numbers) -> Verdict:
    greedy, best = (numbers.rows[name].results[numbers.holdout] for name in ("greedy", "best"))
    text = "The greedy soup is no worse than the best individual model on the hold-out"
    shares = f"{percent(greedy.accuracy)} against {percent(best.accuracy)}"
    holds = HOLDS if greedy.accuracy >= best.accuracy else FAILS
    said = "Yes, as it must: the rule accepts nothing else." if holds == HOLDS else "No."
    return Verdict(f"{text} (by construction)", "recipe 1", holds, shares, said=said)


def _verdict(numbers: Numbers, claim: Claim) -> Verdict:
    on = numbers.test if claim.on == "test" else claim.on
    d = numbers.difference(claim.a, claim.b, on)
    if d is None:
        available = f"{len(numbers.available_shifts)} of {len(numbers.shifts)} shifts"
        return Verdict(claim.text, claim.source, UNKNOWN, available)
    found = UNTESTED if d.p is None else verdict(d.value, d.p)
    return Verdict(claim.text, claim.source, found, f"{percent(d.value, True)} {interval(d)}", said=_said(found, d))


def _said(found: str, d: Difference) -> str:
    """Return what a run found about a claim, as a plain sentence."""
    amount = f"{abs(100 * d.value):.2f} points {'better' if d.value > 0 else 'worse'}"
    if found == HOLDS:
        return f"Yes: {amount}."
    if found == FAILS:
        return f"No: {amount}."
    if d.low is None or d.high is None:
        return f"{amount}, untested."
    return f"Cannot tell: between {percent(d.low, True)} and {percent(d.high, True)} points."


def markdown(verdicts: Sequence[Verdict]) -> str:
    """Return the verdicts as a Markdown table, with corrected p-values if a verdict has one."""
    corrected = any(v.holm is not None for v in verdicts)
    head = ["Claim", "Source", "Verdict", "Difference [95% interval]"]
    head += ["p", "p (Holm)", "Verdict (Holm)"] if corrected else []
    lines = [f"| {' | '.join(head)} |\n", f"|{'---|' * len(head)}\n"]
    for v in verdicts:
        cells = [v.text, v.source, v.verdict, v.numbers]
        cells += [p_text(v.p), p_text(v.holm), v.among_all] if corrected else []
        lines.append(f"| {' | '.join(cells)} |\n")
    return "".join(lines)


def p_text(p: float | None) -> str:
    """Return a p-value as the text of a table cell; None gives an empty text."""
    return "" if p is None else p_value(p).removeprefix("p ").removeprefix("= ")

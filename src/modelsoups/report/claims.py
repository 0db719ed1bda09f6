"""The paper's claims, each with this run's statistics and a verdict.

A claim that row a is better than row b holds when the difference has that sign and p < 0.05, does not hold when it
has the other sign and p < 0.05, and is not decided at this size otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

from modelsoups.report.numbers import MEAN, Numbers, interval, percent

ALPHA = 0.05
HOLDS, FAILS, OPEN = "holds", "does not hold", "not decided at this size"
UNKNOWN, UNTESTED = "not available", "not tested"


@dataclass(frozen=True)
class Claim:
    """a is better than b on a data set; on is "test", "holdout" or the mean of shifts. source: where it is claimed."""

    text: str
    a: str
    b: str
    on: str
    source: str


CLAIMS = (
    Claim("The greedy soup beats the best individual model in distribution", "greedy", "best", "test", "section 3.3.1"),
    Claim("The greedy soup beats the best individual model under shift", "greedy", "best", MEAN, "section 3.3.1"),
    Claim("The uniform soup beats the best individual model under shift", "uniform", "best", MEAN, "table 3"),
    Claim("The uniform soup suffers from bad ingredients: greedy beats it in distribution", "greedy", "uniform", "test",
          "section 3.3.1"),
    Claim("The ensemble beats the best individual model in distribution", "ensemble", "best", "test", "table 3"),
    Claim("The ensemble beats the greedy soup in distribution", "ensemble", "greedy", "test", "section 3.3.1"),
    Claim("The greedy soup beats the greedy ensemble under shift", "greedy", "greedy_ensemble", MEAN, "table 3"),
    Claim("The greedy ensemble beats the greedy soup in distribution", "greedy_ensemble", "greedy", "test", "table 3"),
    Claim("Learned by layer beats the greedy soup in distribution", "learned_layers", "greedy", "test", "table 3"),
)  # fmt: skip
# Not a claim of this paper, but what a reader should know: interpolating one model costs less than a sweep.
ASIDE = "WiSE-FT of the best individual beats the greedy soup under shift"


@dataclass(frozen=True)
class Verdict:
    """p: two-sided, of no difference; holm: the same corrected for all claims of a page; above: on the claim's side."""

    text: str
    source: str
    verdict: str
    numbers: str
    p: float | None = None
    above: bool = True
    holm: float | None = None

    @property
    def among_all(self) -> str:
        """The verdict by the corrected p; the plain one where there is none."""
        if self.holm is None:
            return self.verdict
        return OPEN if self.holm >= ALPHA else HOLDS if self.above else FAILS


def verdict(difference: float, p: float) -> str:
    """See the module."""
    if p >= ALPHA or difference == 0:
        return OPEN
    return HOLDS if difference > 0 else FAILS


def check(numbers: Numbers) -> list[Verdict]:
    """Every claim whose rows this run has. Where only accuracies are known, differences stand without a verdict."""
    rows = numbers.rows
    found = [_construction(numbers)] if "greedy" in rows and "best" in rows else []
    found += [_verdict(numbers, claim) for claim in CLAIMS if claim.a in rows and claim.b in rows]
    wise = [r for r in rows if r.startswith("wise_ft_best")]
    found += [_verdict(numbers, Claim(f"{ASIDE} ({r.rsplit('_', 1)[1]})", r, "greedy", MEAN, "appendix D"))
              for r in wise]  # fmt: skip
    return found


def _construction(numbers: Numbers) -> Verdict:
    greedy, best = (numbers.rows[r].results[numbers.holdout] for r in ("greedy", "best"))
    text = "The greedy soup is no worse than the best individual model on the hold-out (by construction)"
    shares = f"{percent(greedy.accuracy)} against {percent(best.accuracy)}"
    return Verdict(text, "recipe 1", HOLDS if greedy.correct >= best.correct else FAILS, shares)


def _verdict(numbers: Numbers, claim: Claim) -> Verdict:
    d = numbers.difference(claim.a, claim.b, numbers.test if claim.on == "test" else claim.on)
    if d is None:
        there = f"{len(numbers.present)} of {len(numbers.shifts)} shifts"
        return Verdict(claim.text, claim.source, UNKNOWN, there)
    says = UNTESTED if d.p is None else verdict(d.value, d.p)
    return Verdict(claim.text, claim.source, says, f"{percent(d.value, True)} {interval(d)}")


def markdown(verdicts: list[Verdict]) -> str:
    """A table; with p, plain and corrected, and the verdict by the latter, where claims have been corrected."""
    corrected = any(v.holm is not None for v in verdicts)
    more = " | p | p (Holm) | Verdict (Holm)" if corrected else ""
    lines = [
        f"| Claim | Source | Verdict | Difference [95% interval]{more} |\n",
        f"|{'---|' * (7 if corrected else 4)}\n",
    ]
    for v in verdicts:
        cells = [v.text, v.source, v.verdict, v.numbers]
        cells += [p_text(v.p), p_text(v.holm), v.among_all] if corrected else []
        lines.append(f"| {' | '.join(cells)} |\n")
    return "".join(lines)


def p_text(p: float | None) -> str:
    return "" if p is None else "< 0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.01 else f"{p:.2f}"

"""The analyses on one page, in the order of the paper: what the paper found, what this run found, and the figure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from modelsoups.report import svg
from modelsoups.report.claims import FAILS, HOLDS, OPEN, Verdict, p_text
from modelsoups.report.numbers import percent
from modelsoups.report.templates import asset

if TYPE_CHECKING:
    from modelsoups.analyses.analysis import Analysis

Table = list[list[str]]  # header first
Section = tuple["Analysis", list[Verdict], bytes | None, Table | None]
CSS = asset("page.css")
MORE = """
section { border-top: 1px solid var(--line); margin-top: 2rem } dt { font-weight: 600; margin-top: .5rem }
dd { margin: 0 0 .3rem } figure.drawn { max-width: 56rem }
.claims :is(th, td):nth-child(2) { text-align: left; white-space: normal; width: 100%; min-width: 16rem }
.claims th { white-space: nowrap }
"""


def page(
    name: str, sections: Sequence[Section], missing: dict[str, str], provenance: dict[str, Any], report: str | None
) -> str:
    """Self-contained HTML; report: where the experiment's own page is."""
    verdicts = [v for _, found, _, _ in sections for v in found]
    plain, among = (_counted([getattr(v, by) for v in verdicts]) for by in ("verdict", "among_all"))
    back = f'<p><a href="{report}">Table 3 and the report of this experiment</a></p>' if report else ""
    parts = [
        f"<h1>Model soups: the paper's analyses on {escape(name)}</h1>{back}",
        f"<p>{len(verdicts)} claims. Each by itself: {plain}. Corrected for their number (Holm, 5% for the page): "
        f"{among}. Brackets hold 95% intervals, p is two-sided. Every number comes from the .jsonl file of its figure "
        "beside this page.</p>",
        f"<nav aria-label=Sections>{' '.join(_anchor(a) for a, *_ in sections)}</nav>",
        *(_section(*section) for section in sections),
    ]
    if missing:
        rows = "".join(f"<dt>{escape(title)}</dt><dd>{escape(why)}</dd>" for title, why in missing.items())
        parts.append(f"<section><h2>What these models do not allow</h2><dl>{rows}</dl></section>")
    made = {key: provenance.get(key) for key in ("command", "commit", "machine", "python", "time")}
    items = "".join(f"<li>{escape(k)}: <code>{escape(str(v))}</code></li>" for k, v in made.items())
    parts.append(f"<section><h2>Provenance</h2><ul class=faint>{items}</ul></section>")
    head = f"<meta charset=utf-8><meta name=viewport content='width=device-width, initial-scale=1'><style>{CSS}{MORE}"
    title = f"</style><title>Model soups: analyses of {escape(name)}</title>"
    return (
        f"<!doctype html>\n<html lang=en><head>{head}{title}</head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _counted(kinds: Sequence[str]) -> str:
    counts = {kind: sum(k == kind for k in kinds) for kind in dict.fromkeys((HOLDS, FAILS, OPEN, *kinds))}
    return escape(", ".join(f"{n} {kind}" for kind, n in counts.items() if n)) or "none could be checked"


def _anchor(analysis: Analysis) -> str:
    return f'<a href="#{analysis.name}">{escape(analysis.title.split(". ")[0])}</a>'


def _section(analysis: Analysis, verdicts: list[Verdict], drawn: bytes | None, table: Table | None) -> str:
    shown = ""
    if drawn:
        inline = svg.inline(drawn, {}, analysis.name, analysis.title)
        shown = f"<figure class=drawn>{inline}</figure>"
    if table:
        shown += _table(table)
    found = f"{_counted([v.verdict for v in verdicts])}" if verdicts else "too few models to say"
    return (
        f"<section id={analysis.name}><h2>{escape(analysis.title)}</h2>"
        f"<p><b>The paper</b> ({escape(analysis.source)}): {escape(analysis.paper)}<br><b>This run</b>: {found}.</p>"
        f"{shown}{_claims(verdicts) if verdicts else ''}</section>"
    )


def _claims(verdicts: list[Verdict]) -> str:
    heads = ("Verdict", "Claim", "Difference [95% interval]", "p", "p (Holm)", "Among all claims")
    ths = "".join(f"<th scope=col>{h}</th>" for h in heads)
    rows = "".join(
        f"<tr><td><b class={_kind(v.verdict)}>{escape(v.verdict)}</b></td><td>{escape(v.text)}</td>"
        f"<td>{escape(v.numbers)}</td><td>{escape(p_text(v.p))}</td><td>{escape(p_text(v.holm))}</td>"
        f"<td class={_kind(v.among_all)}>{escape(v.among_all)}</td></tr>"
        for v in verdicts
    )
    return f"<div class='scroll claims'><table><thead><tr>{ths}</tr></thead><tbody>{rows}</tbody></table></div>"


def _kind(verdict: str) -> str:
    return {HOLDS: "holds", FAILS: "fails"}.get(verdict, "open")


def _table(table: Table) -> str:
    head, *body = table
    ths = "".join(f"<th scope=col>{escape(h)}</th>" for h in head)
    rows = "".join("<tr>" + "".join(f"<td>{escape(x)}</td>" for x in row) + "</tr>" for row in body)
    return f"<div class=scroll tabindex=0><table><thead><tr>{ths}</tr></thead><tbody>{rows}</tbody></table></div>"


# ---- tables ----


def table_of(name: str, rows: list[dict[str, Any]]) -> Table | None:
    """The rows of an analysis that is a table in the paper, in per cent; None for a figure."""
    if name == "table_4":
        return _table_4(rows)
    if name in ("table_L1", "table_L2", "table_L3"):
        return _beside_paper(rows)
    return _orders(rows) if name == "selection" else None


def _table_4(rows: list[dict[str, Any]]) -> Table:
    rows = [r for r in rows if "row" in r]
    columns = list(dict.fromkeys(r["column"] for r in rows))
    labels = {
        "best": "Best model on hold-out",
        "oracle": "Best model on each test set (oracle)",
        "greedy_ensemble": "Greedy ensemble",
        "greedy": "Greedy soup",
    }
    titles = {r["column"]: r["title"] for r in rows}
    table = [["Method (*: not significantly below the best)", *(titles[c] for c in columns)]]
    for row, label in labels.items():
        cells = {r["column"]: percent(r["accuracy"]) + ("*" if r.get("bold") else "") for r in rows if r["row"] == row}
        table.append([label, *(cells[c] for c in columns)])
    return table


def _beside_paper(rows: list[dict[str, Any]]) -> Table:
    table = [["Row", "Learning rate", "Test", "Shifts", "Paper: ImageNet", "Paper: shifts"]]
    for r in (r for r in rows if "row" in r):
        ours = [percent(r["test"]), percent(r["shifts"])] if "test" in r else ["not made", ""]
        table.append([r["row"], f"{r['lr']:.1e}", *ours, f"{r['paper_test']:.2f}", f"{r['paper_shifts']:.2f}"])
    return table


def _orders(rows: list[dict[str, Any]]) -> Table:
    table = [["Order", "Models", "Test", "Shifts", "Gain on hold-out", "Gain on test", "Gain on shifts"]]
    for r in (r for r in rows if "order" in r):
        gains = [
            percent(r[key], True) if r[key] is not None else "" for key in ("gain_holdout", "gain_test", "gain_shifts")
        ]
        table.append([str(r["order"]), str(r.get("models", "")), percent(r["test"]), percent(r["shifts"]), *gains])
    table.append(["Half of the hold-out", "", "", "", "Gain where chosen", "Gain where not", "Optimism"])
    for r in (r for r in rows if "split" in r):
        table.append(
            [f"split {r['split']}", "", "", "", *(percent(r[k], True) for k in ("apparent", "honest", "optimism"))]
        )
    return table

"""One self-contained HTML page: headline, tables, figures, claims, recipes, data, costs, provenance.

No script is fetched and no font; the figures are the vector ones of the paper, inlined. Every number carries, as its
title, what it was measured on and what made it.
"""

from __future__ import annotations

import base64
import re
from html import escape

from modelsoups.reporting import beside
from modelsoups.reporting.claims import Verdict
from modelsoups.reporting.compare import Difference, Numbers, p_value, percent
from modelsoups.reporting.tables import Line, Rows, cells, header, label_of, table_3

CSS = """
:root { --ink: #1b1f24; --paper: #fff; --faint: #667; --line: #d5d9df; --band: #f4f6f8; --mark: #0b6bcb; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --paper: #14171b; --faint: #9aa3ad; --line: #333a43; --band: #1d2228; --mark: #6cb2ff; }
}
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 auto;
  max-width: 76rem; padding: 1.5rem 1rem 4rem }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4rem } h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem }
p { max-width: 46rem } .faint { color: var(--faint); font-size: .9rem }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px }
table { border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums }
th, td { padding: .35rem .5rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line) }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--paper) }
td.text, th.text { text-align: left; white-space: normal; min-width: 12rem }
thead th { white-space: normal; vertical-align: bottom }
thead th, thead th:first-child { background: var(--band) }
th button { all: unset; cursor: pointer } th button:focus-visible { outline: 2px solid var(--mark) }
tr.own td { color: var(--faint) } tr:last-child td { border-bottom: 0 }
td[title] { text-decoration: underline dotted var(--line) 1px; text-underline-offset: 3px }
figure { margin: 0; background: #fff; border: 1px solid var(--line); border-radius: 6px; padding: .6rem;
  overflow-x: auto }
figure svg, figure img { max-width: 100%; height: auto; display: block; margin: auto }
figcaption { color: #555; font-size: .85rem; padding: .4rem .2rem 0 }
.two { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)) }
.holds { color: #0a7d43 } .fails { color: #c0392b } .open { color: var(--faint) }
@media (prefers-color-scheme: dark) { .holds { color: #4fd08a } .fails { color: #ff8a7a } }
code { font-size: .85em; overflow-wrap: anywhere }
@media (max-width: 40rem) { td:first-child { white-space: normal; min-width: 8.5rem } }
@media print { body { max-width: none; padding: 0 } .scroll { overflow: visible; border: 0 } h2 { break-after: avoid } }
"""
SCRIPT = """
for (const button of document.querySelectorAll('th button')) button.onclick = () => {
  const th = button.closest('th'), table = th.closest('table'), i = th.cellIndex;
  const up = th.getAttribute('aria-sort') !== 'ascending';
  const key = r => { const t = r.cells[i].textContent, x = parseFloat(t); return isNaN(x) ? t : x };
  const rows = [...table.tBodies[0].rows].sort((a, b) => { const x = key(a), y = key(b);
    const d = typeof x !== typeof y ? (typeof x === 'number' ? -1 : 1) : x < y ? -1 : x > y ? 1 : 0;
    return up ? d : -d });
  table.tBodies[0].append(...rows);
  for (const h of th.parentNode.cells) h.removeAttribute('aria-sort');
  th.setAttribute('aria-sort', up ? 'ascending' : 'descending');
};
"""


def page(numbers: Numbers, verdicts: list[Verdict], svgs: dict[str, bytes], contact_png: bytes) -> str:
    evidence = numbers.evidence
    contact = base64.b64encode(contact_png).decode()
    parts = [
        f"<h1>Model soups: {escape(evidence.name)}</h1>",
        _headline(numbers),
        "".join(f"<p class=faint>{escape(note)}</p>" for note in [*_missing(numbers), *evidence.notes]),
        "<h2>Table 3, beside the paper's</h2>",
        _table(header(numbers), [_line(numbers, line) for line in table_3(numbers)]),
        "<p class=faint>Per cent, top-1. In parentheses: standard deviation over random orders. Everything was chosen "
        "on the hold-out; no test set was looked at before. Hold the pointer over a number for n, its interval and "
        "its source. The paper's numbers are of CLIP ViT-B/32 on ImageNet.</p>",
        _beside(numbers),
        "<h2>Figures</h2><div class=two>",
        _figure(svgs["figure_1"], "Figure 1. In distribution against shift; ingredients coloured by learning rate."),
        _figure(svgs["figure_B1"], "Figure B.1. Accuracy against the number of models, in one random order."),
        "</div>",
        "<h2>The paper's claims, checked on this run</h2>",
        _table(["Claim", "Source", "Verdict", "Difference, 95% interval"], [_claim(v) for v in verdicts], text=2),
        "<h2>Ingredients</h2>",
        _table(*_ingredients(numbers)),
        "<h2>How the greedy soup came about</h2>",
        _table(*_trace(numbers)),
        "<h2>The data</h2>",
        f'<figure><img alt="Images of each data set" src="data:image/png;base64,{contact}"></figure>',
        "<h2>Costs and provenance</h2>",
        _table(["Stage", "Seconds"], [_row([s, f"{t:.1f}"]) for s, t in evidence.timings.items()]),
        _provenance(numbers),
    ]
    return _document(f"Model soups: {evidence.name}", parts)


def plain_page(title: str, notes: list[str], rows: Rows) -> str:
    """A page of one table, header first."""
    head, *body = rows
    return _document(title, [f"<h1>{escape(title)}</h1>", *(f"<p>{escape(note)}</p>" for note in notes),
                             _table(head, [_row(row) for row in body])])  # fmt: skip


def _document(title: str, parts: list[str]) -> str:
    head = f"<title>{escape(title)}</title><style>{CSS}</style>"
    meta = '<meta charset=utf-8><meta name=viewport content="width=device-width, initial-scale=1">'
    body = "\n".join(parts)
    script = f"<script>{SCRIPT}</script>"
    return f"<!doctype html>\n<html lang=en><head>{meta}{head}</head><body>\n{body}\n{script}</body></html>\n"


def _beside(numbers: Numbers) -> str:
    """Ours beside the released results and the paper's, where they are of the same model and data."""
    if not beside.applies(numbers):
        return ""
    head, *body = beside.rows_of(numbers)
    table = _table(head, [_row(row) for row in body])
    return f"<h2>Beside the published numbers</h2>{table}<p class=faint>{escape(beside.NOTE)}</p>"


def _headline(numbers: Numbers) -> str:
    test, *mean = numbers.headline
    under_shift = f", <b>{_words(mean[0])}</b> on the mean of {len(numbers.shifts)} distribution shifts" if mean else ""
    return (
        f"<p>The greedy soup against the best individual model, one model either way at inference: "
        f"<b>{_words(test)}</b> in distribution{under_shift}.</p>"
    )


def _words(d: Difference) -> str:
    interval = f"{percent(d.low, True)} to {percent(d.high, True)}"
    return f"{percent(d.value, True)} points ({interval}; {p_value(d.p)})"


def _missing(numbers: Numbers) -> list[str]:
    return [f"Ingredient {name} is not in the pool: {why}." for name, why in numbers.evidence.failed.items()]


def _table(head: list[str], rows: list[str], text: int = 1) -> str:
    ths = "".join(
        f"<th scope=col{' class=text' if i < text and text > 1 else ''}><button>{escape(h)}</button></th>"
        for i, h in enumerate(head)
    )
    body = "".join(rows)
    return f"<div class=scroll tabindex=0><table><thead><tr>{ths}</tr></thead><tbody>{body}</tbody></table></div>"


def _row(texts: list[str], titles: list[str] | None = None, kind: str = "") -> str:
    titles = titles or [""] * len(texts)
    tds = "".join(
        f'<td title="{escape(t)}">{escape(x)}</td>' if t else f"<td>{escape(x)}</td>"
        for x, t in zip(texts, titles, strict=True)
    )
    return f"<tr{f' class={kind}' if kind else ''}>{tds}</tr>"


def _line(numbers: Numbers, line: Line) -> str:
    texts = cells(numbers, line)
    sets = {s.name: s for s in numbers.evidence.sets}
    made = numbers.evidence.provenance
    source = f"row {line.row}; {made.get('command', '')}; commit {made.get('commit')}"
    interval = f", 95% interval {' to '.join(percent(x) for x in line.interval)}" if line.interval else ""
    titles = [
        "",
        f"n = {sets[numbers.test].n}{interval}; {source}",
        f"unweighted mean of {len(numbers.shifts)}; {source}",
    ]
    titles += ["Wortsman et al. 2022, table 3" if line.paper else ""] * 2
    titles += [f"n = {sets[name].n}; {source}" if sets[name].n else "" for name in [*numbers.shifts, *numbers.extra]]
    return _row(texts, titles, "" if line.paper else "own")


def _claim(v: Verdict) -> str:
    kind = {"holds": "holds", "does not hold": "fails"}.get(v.verdict, "open")
    texts = f"<td class=text>{escape(v.text)}</td><td class=text>{escape(v.source)}</td>"
    return f"<tr>{texts}<td class={kind}>{escape(v.verdict)}</td><td>{escape(v.numbers)}</td></tr>"


def _figure(svg: bytes, caption: str) -> str:
    inline = svg.decode()
    inline = inline[inline.index("<svg") :]
    prefix = re.sub(r"\W", "", caption[:9])  # ids must not meet those of the other figure
    inline = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{prefix}-", inline)
    return f"<figure>{inline}<figcaption>{escape(caption)}</figcaption></figure>"


def _ingredients(numbers: Numbers) -> tuple[list[str], list[str]]:
    head = ["Ingredient", "Learning rate", "Weight decay", "Epochs", "Smoothing", "Mixup", "Augmentation"]
    rows = []
    for name, row in numbers.evidence.individuals.items():
        recipe, r = [""] * 6, row.recipe
        if r is not None:
            recipe = [f"{r.lr:.2e}", f"{r.weight_decay:.2g}", str(r.epochs), f"{r.label_smoothing:.2f}"]
            recipe += [f"{r.mixup:.2f}", r.aug]
        accuracies = [percent(row.accuracy(n)) for n in (numbers.holdout, numbers.test)]
        rows.append(_row([name, *recipe, *accuracies, percent(numbers.shift_mean(row))]))
    return [*head, "Hold-out", "Test", "Shifts"], rows


def _trace(numbers: Numbers) -> tuple[list[str], list[str]]:
    soup = numbers.evidence.rows["greedy"].soup
    rows = []
    for step in soup.trace if soup else ():
        share = percent(step["correct"] / step["n"])
        rows.append(_row([str(step["ingredient"]), share, "added" if step["kept"] else "left out"]))
    return ["Candidate, best first", "Hold-out with it", "Decision"], rows


def _provenance(numbers: Numbers) -> str:
    made = numbers.evidence.provenance
    packages = ", ".join(f"{k} {v}" for k, v in made.get("packages", {}).items())
    facts = {k: made.get(k) for k in ("command", "commit", "machine", "python", "time")} | {"packages": packages}
    items = "".join(f"<li>{escape(k)}: <code>{escape(str(v))}</code></li>" for k, v in facts.items())
    soups = "".join(
        f"<li>{escape(label_of(name))}: <code>{escape(', '.join(row.soup.ingredients))}</code></li>"
        for name, row in numbers.evidence.rows.items()
        if row.soup is not None and name in ("best", "greedy", "greedy_ensemble")
    )
    return f"<ul class=faint>{items}{soups}</ul>"

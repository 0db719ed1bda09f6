"""results.jsonl, Table 3, figures, claims and one HTML page, from a finished run: `modelsoups report`."""

from __future__ import annotations

import json
from dataclasses import asdict

from modelsoups import published, runs
from modelsoups.config import Config
from modelsoups.evidence import collect, report_inputs
from modelsoups.runs import Run


def run(cfg: Config) -> bool:
    """Write the report if it is not complete, and print Table 3 with its headline either way."""
    released = cfg.pool == "imported" and runs.manifest_of(cfg.run.soups) is None
    inputs: dict[str, object] = {"released results": published.MODELS} if released else report_inputs(cfg)
    made = not runs.complete(cfg.run.results, inputs)
    if made and released:
        _write_released(cfg, inputs)
    elif made:
        _write(cfg, inputs)
    else:
        print(f"report: complete, in {cfg.run.results}")
    print("\n" + (cfg.run.results / "summary.txt").read_text(encoding="utf-8"))
    print(f"report: {cfg.run.results / 'index.html'}")
    return made


def _write(cfg: Config, inputs: dict[str, object]) -> None:
    from modelsoups.reporting import beside, claims, figures, page, tables
    from modelsoups.reporting.compare import Numbers

    numbers = Numbers(collect(cfg))
    verdicts = claims.check(numbers)
    texts = {
        "results.jsonl": "".join(json.dumps(line) + "\n" for line in numbers.lines()),
        **_table_files("table_3", tables.rows_of(numbers)),
        "claims.md": claims.markdown(verdicts),
        "summary.txt": summary(numbers),
        "provenance.json": json.dumps({**numbers.evidence.provenance, "seconds": numbers.evidence.timings}, indent=1)
        + "\n",
    }
    if beside.applies(numbers):
        texts |= _table_files("published", beside.rows_of(numbers))
    binaries: dict[str, bytes] = {}
    svgs: dict[str, bytes] = {}
    with figures.style():
        for name, draw in (("figure_1", figures.figure_1), ("figure_B1", figures.figure_b1)):
            figure = draw(numbers)
            binaries |= {f"{name}.{kind}": figures.save(figure, kind) for kind in ("png", "pdf")}
            svgs[name] = figures.save(figure, "svg")
            figures.close(figure)
        sheet = figures.contact_sheet(numbers)
        binaries["contact.png"] = figures.save(sheet, "png")
        figures.close(sheet)
    texts["index.html"] = page.page(numbers, verdicts, svgs, binaries["contact.png"])
    _save(cfg.run, inputs, texts, binaries)


def _write_released(cfg: Config, inputs: dict[str, object]) -> None:
    """Table 3 as far as the authors' released results determine it; nothing was evaluated here."""
    from modelsoups.reporting import beside, page, tables

    rows = beside.released_rows()
    notes = [
        "From the authors' released results alone: no model was evaluated here. Best and second best follow from "
        "the 72 models' accuracies, chosen on the hold-out; soups and ensemble are as released.",
        "For accuracies of your own: modelsoups import-released DIR, then modelsoups experiment=released data.root=...",
    ]
    lines = [{"row": line.row, **asdict(line)} for line in published.table_3_from_released()]
    texts = {
        "results.jsonl": "".join(json.dumps(line) + "\n" for line in lines),
        **_table_files("table_3", rows),
        "summary.txt": tables.aligned([row[:8] for row in rows]) + "\n\n" + "\n".join(notes) + "\n",
        "index.html": page.plain_page("Table 3 from the released results", notes, rows),
        "provenance.json": json.dumps({**runs.provenance(), "config": asdict(cfg)}, indent=1) + "\n",
    }
    _save(cfg.run, inputs, texts, {})


def _table_files(name: str, rows: list[list[str]]) -> dict[str, str]:
    """A table in each form, by file name."""
    from modelsoups.reporting import tables

    forms = {"md": tables.markdown, "tex": tables.latex, "csv": tables.comma_separated}
    return {f"{name}.{kind}": form(rows) for kind, form in forms.items()}


def _save(run_: Run, inputs: dict[str, object], texts: dict[str, str], binaries: dict[str, bytes]) -> None:
    for name, text in texts.items():
        runs.write_text(run_.results / name, text)
    for name, content in binaries.items():
        with runs.atomic(run_.results / name) as tmp:
            tmp.write_bytes(content)
    runs.finish(run_.results, inputs, [run_.results / name for name in [*texts, *binaries]])


def summary(numbers) -> str:  # type: ignore[no-untyped-def]
    """Table 3 for a terminal, and the greedy soup against the best individual."""
    from modelsoups.reporting import tables
    from modelsoups.reporting.compare import p_value, percent

    lines = [tables.plain(numbers), ""]
    for d in numbers.headline:
        interval = f"[{percent(d.low, True)}, {percent(d.high, True)}]"
        lines.append(f"greedy soup - best individual, {d.on}: {percent(d.value, True)} {interval}, {p_value(d.p)}")
    return "\n".join(lines) + "\n"

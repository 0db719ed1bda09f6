"""results.jsonl, Table 3, figures, claims and one HTML page, from a finished run: `modelsoups report`."""

from __future__ import annotations

import json

from modelsoups import runs
from modelsoups.config import Config
from modelsoups.evidence import collect, report_inputs
from modelsoups.runs import Run


def run(cfg: Config) -> bool:
    """Write the report if it is not complete, and print Table 3 with its headline either way."""
    inputs = report_inputs(cfg)
    made = not runs.complete(cfg.run.results, inputs)
    if made:
        _write(cfg, inputs)
    else:
        print(f"report: complete, in {cfg.run.results}")
    print("\n" + (cfg.run.results / "summary.txt").read_text(encoding="utf-8"))
    print(f"report: {cfg.run.results / 'index.html'}")
    return made


def _write(cfg: Config, inputs: dict[str, object]) -> None:
    from modelsoups.reporting import claims, figures, page, tables
    from modelsoups.reporting.compare import Numbers

    numbers = Numbers(collect(cfg))
    verdicts = claims.check(numbers)
    texts = {
        "results.jsonl": "".join(json.dumps(line) + "\n" for line in numbers.lines()),
        "table_3.md": tables.markdown(numbers),
        "table_3.tex": tables.latex(numbers),
        "table_3.csv": tables.comma_separated(numbers),
        "claims.md": claims.markdown(verdicts),
        "summary.txt": summary(numbers),
        "provenance.json": json.dumps({**numbers.evidence.provenance, "seconds": numbers.evidence.timings}, indent=1)
        + "\n",
    }
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

"""Tables through LaTeX."""

import re
import shutil
import subprocess

import pytest
from hand_report import NASTY, evidence, numbers_of

from modelsoups.report import table_3, text_tables
from modelsoups.report.numbers import SetInfo

LATEX = shutil.which("pdflatex") or shutil.which("tectonic")
DOCUMENT = r"""\documentclass{article}
\usepackage[margin=20mm]{geometry}
\usepackage{booktabs}
\begin{document}
\noindent\small %s
\end{document}
"""


@pytest.mark.skipif(LATEX is None, reason="no LaTeX on PATH (Debian: apt-get install texlive-latex-recommended)")
def test_latex_tables_compile_with_any_name(tmp_path):
    sets = [SetInfo(s.name, f"[{NASTY}" if s.role == "shift" else s.title, s.role, s.n) for s in evidence().sets]
    nasty = numbers_of(evidence(sets=sets))
    plain = numbers_of(evidence())
    every = r"[a] \input{x} \\ ~^_$%#&{} <>|`" + '"'
    made = [text_tables.latex(table_3.without_sets(plain)), text_tables.latex(table_3.each_set(plain))]
    made += [text_tables.latex(table_3.each_set(nasty)[:1]), text_tables.latex([["[", every], ["[x]", every]])]
    (tmp_path / "all.tex").write_text(DOCUMENT % "\n\n".join(made))
    command = [LATEX, "all.tex"] if "tectonic" in LATEX else [LATEX, "-halt-on-error", "-no-shell-escape", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "all.pdf").stat().st_size > 1000
    log = (tmp_path / "all.log").read_text(errors="replace")
    wide = [float(x) for x in re.findall(r"Overfull \\hbox \(([\d.]+)pt", log)]
    assert len(wide) <= 2, log  # the nasty names may be wide; the tables of names that occur are not

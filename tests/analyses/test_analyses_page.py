"""The page of the analyses says what the paper and this run found, and shows text as text."""

from modelsoups.analyses.page import Section, page
from modelsoups.analyses.registry import ANALYSES
from modelsoups.report.claims import FAILS, HOLDS, Verdict

PROVENANCE = {"command": "modelsoups analyse", "commit": None, "machine": "m", "python": "3", "time": "t"}


def test_names_and_reasons_are_shown_as_text():
    table = [["<head>"], ["a & b"]]
    verdict = Verdict("soup > ensemble", "here", HOLDS, "+1.00 [+0.50, +1.50] points", p=0.001, holm=0.2)
    sections = [Section(ANALYSES["table_4"], [verdict], table=table), Section(ANALYSES["figure_3"], [])]
    html = page("<b>x</b>", sections, {"Figure 4": "1 < 2"}, PROVENANCE, "../index.html")
    for text in ("&lt;b&gt;x&lt;/b&gt;", "soup &gt; ensemble", "1 &lt; 2", "&lt;head&gt;", "a &amp; b"):
        assert text in html
    assert "<b>x</b>" not in html
    assert 'href="../index.html"' in html
    assert 'href="#figure_3"' in html
    assert '<td class="open tip" data-label="Verdict"' in html
    assert "Two-sided p = 0.0010; corrected for all claims of the page: p = 0.20." in html
    assert "By itself, without the correction: holds." in html
    assert "too few models to test the claims" in html


def test_verdicts_are_counted_each_and_together():
    verdicts = [Verdict("a", "", HOLDS, ""), Verdict("b", "", FAILS, ""), Verdict("c", "", HOLDS, "")]
    html = " ".join(page("x", [Section(ANALYSES["table_4"], verdicts)], {}, PROVENANCE, None).split())
    assert "3 claims were tested: 2 hold, 1 does not hold." in html
    assert "What does not hold here, although the paper claims it" in html
    assert "Not possible with these models" not in html
    assert "none could be checked" in page("x", [], {}, PROVENANCE, None)

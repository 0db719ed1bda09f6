"""The page in a real browser, and its print."""

import json
import re
import shutil
import subprocess
from html import unescape

import pytest
from hand_report import evidence, html, numbers_of

from modelsoups.report import table_3
from modelsoups.report.numbers import Numbers, percent

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--virtual-time-budget=4000",
         "--enable-logging=stderr"]  # fmt: skip
WIDTHS = (1280, 1920, 390)
PROBE = """<script>{ const found = {};
window.onerror = message => { found.error = message };
const key = name => document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key: name, bubbles: true}));
const tip = () => document.getElementById('tooltip');
window.onload = () => { try {
  const d = document.documentElement, style = getComputedStyle(document.body);
  found.unseen = [...document.querySelectorAll('p, figcaption')].filter(p => !p.getClientRects().length).length;
  found.overflow = d.scrollWidth - d.clientWidth;
  found.ground = style.backgroundColor;
  found.axis = getComputedStyle(document.querySelector('svg text')).fill;
  document.querySelectorAll('#table-3 tr:nth-child(2) th button')[1].click();
  found.first = document.querySelector('#table-3 tbody tr:not(.part)').cells[1].textContent;
  const greedy = [...document.querySelectorAll('#table-3 tbody tr')].find(r => r.cells[0].textContent == 'Greedy soup');
  greedy.cells[1].focus(); found.tip = tip().textContent;
  key('ArrowRight'); found.next = document.activeElement.cellIndex;
  const marks = [...document.querySelectorAll('#figures svg .mark')].filter(m => m.getClientRects().length);
  found.marks = marks.length; found.stops = document.querySelectorAll('#figures svg [tabindex="0"]').length;
  marks[0].focus(); found.mark = tip().textContent;
  key('ArrowRight'); found.other = tip().textContent;
  key('Escape'); found.hidden = tip().hidden;
  const shown = [...document.querySelectorAll('#the-answer svg .mark')].find(m => m.getClientRects().length);
  shown.dispatchEvent(new PointerEvent('pointerover', {bubbles: true}));
  found.answer = tip().textContent;
  found.method = greedy.cells[0].dataset.tip;
  found.cut = [...document.querySelectorAll('.scroll')].filter(s => s.scrollWidth > s.clientWidth)
    .map(s => s.closest('section').id);
  found.silent = [...document.querySelectorAll('#each-test-set td, #ingredients td:nth-child(n+8)')]
    .filter(c => /\\d/.test(c.textContent) && !c.dataset.tip && !/\\(/.test(c.textContent)).length;
  } catch (error) { found.error = String(error) }
  parent.postMessage([innerWidth, found], '*') } }</script>"""
FRAME = """<!doctype html><html><meta name="color-scheme" content="light dark"><body>
<script>onmessage = event => { const p = document.createElement('pre');
p.textContent = 'FOUND ' + JSON.stringify(event.data); document.body.append(p) }</script>"""


@pytest.fixture(scope="module")
def content():
    return html(numbers_of(evidence(provenance={"command": "modelsoups name=hand", "commit": "c0ffee", "config": {}})))


def browse(folder, file, *flags):
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags, file.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH (Debian: apt-get install chromium)")
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_works_in_a_real_browser(tmp_path, content, dark):
    """At both widths: no error, no sideways scrolling, tables that sort, numbers that say where they come from."""
    (tmp_path / "index.html").write_text(content.replace("<body>", "<body>" + PROBE))
    frames = "".join(f'<iframe src="index.html" width="{w}" height="900" frameborder="0"></iframe>' for w in WIDTHS)
    (tmp_path / "frame.html").write_text(FRAME + frames)
    scheme = ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if dark else []
    done = browse(tmp_path, tmp_path / "frame.html", "--window-size=2000,1000", *scheme, "--dump-dom")
    assert "CONSOLE" not in done.stderr, done.stderr
    found = dict(json.loads(text) for text in re.findall(r"<pre>FOUND (.*?)</pre>", unescape(done.stdout)))
    assert set(found) == set(WIDTHS), done.stdout[-2000:]
    for said in found.values():
        assert "error" not in said, said
        assert said["unseen"] == 0
        assert said["overflow"] == 0
        assert said["ground"] == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")
        assert said["axis"] == ("rgb(230, 232, 235)" if dark else "rgb(27, 31, 36)")
        assert said["first"] == "40.00"  # sorted by test accuracy, the initialization comes first
        assert "70 of 100 images" in said["tip"]
        for part in ("commit c0ffee", "config ", "command: modelsoups name=hand", "95% interval 60.42 to 78.11"):
            assert part in said["tip"]
        assert said["next"] == 2
        assert said["marks"] > said["stops"] >= 2
        assert "learning rate 1.00e-04" in said["mark"]
        assert said["other"] not in ("", said["mark"])
        assert said["hidden"] is True
        assert "minus best individual model" in said["answer"]
        assert said["method"].startswith("Models are tried in order")
        assert said["cut"] == []  # no column of any table is out of sight
        assert said["silent"] == 0


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH (Debian: apt-get install chromium)")
def test_the_page_prints(tmp_path, content):
    (tmp_path / "index.html").write_text(content)
    browse(tmp_path, tmp_path / "index.html", f"--print-to-pdf={tmp_path / 'page.pdf'}")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


def test_the_page_asks_nothing_of_a_network(content):
    links = re.findall(r"""(?:src|href)=["']?([^"'\s>]+)|url\(([^)]+)\)|@import""", content)
    for link in filter(None, (a or b for a, b in links)):
        assert link.startswith(("#", "data:")), link


def test_numbers_of_the_page_are_those_of_the_file(content):
    numbers = numbers_of(evidence())
    for line in table_3.method_rows(numbers):
        assert f">{percent(line.scores[0])}" in content
    lines = json.loads(json.dumps(numbers.lines))
    changed = next(x for x in lines if x.get("row") == "uniform" and x.get("dataset") == "test")
    changed["accuracy"] = 0.1234
    assert ">12.34<" not in content
    assert ">12.34<" in html(Numbers(lines))

"""The documentation: it builds without a warning, its links lead somewhere, its commands exist."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from modelsoups.cli import commands
from modelsoups.config import reference
from modelsoups.config.compose import check_overrides
from modelsoups.soup.coefficients import Ingredient
from modelsoups.soup.methods import Pool

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
READ = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]


def test_usage_in_the_documentation_is_the_programs_own():
    assert (ROOT / "docs/usage.txt").read_text() == commands.usage() + "\n"


def test_keys_in_the_documentation_are_the_schemas_own():
    assert (ROOT / "docs/keys.txt").read_text() == reference.markdown()


@pytest.mark.parametrize("page", READ, ids=lambda p: p.name)
def test_files_that_are_linked_or_named_exist(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target
    for name in re.findall(r"`((?:src|conf|tests|sweeps|benchmarks|results)/[\w./-]+)`", text):
        assert (ROOT / name).exists() or name.startswith("conf/") or "NAME" in name, name


@pytest.mark.parametrize("page", READ, ids=lambda p: p.name)
def test_commands_have_stages_and_keys_that_exist(page):
    known = {*commands.STAGES, *commands.APART, *commands.COMMANDS}
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    for language, block in fences:
        for line in block.splitlines() if language in ("", "sh") else ():
            words = line.split(" #")[0].split()
            if not words or words[0] != "modelsoups":
                continue
            stage = words[1] if len(words) > 1 and re.fullmatch(r"[a-z-]+", words[1]) else None
            assert stage is None or stage in known, line
            own = [w.strip("'") for w in words if re.match(r"[\w.]+=", w)]
            if stage not in commands.COMMANDS or stage == "verify":
                check_overrides([w for w in own if "..." not in w and "PLACE" not in w and "range(" not in w])


def test_the_gallery_has_every_figure_of_the_results():
    page = (ROOT / "docs/gallery.md").read_text(encoding="utf-8")
    for figure in (ROOT / "results").rglob("*.png"):
        assert f"](../{figure.relative_to(ROOT)})" in page, "run python docs/gallery.py"
    written = runpy.run_path(str(ROOT / "docs/gallery.py"))["markdown"]()
    assert page == written, "run python docs/gallery.py"


def test_every_page_is_in_the_navigation():
    nav = re.findall(r"[\w-]+\.md", str(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert sorted(nav) == [p.name for p in PAGES]


def test_the_method_of_the_guide_works():
    import torch

    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/own-method.md").read_text(), re.DOTALL)
    names: dict = {}
    exec(compile(code, "own-method.md", "exec"), names)
    labels_N = torch.tensor([0, 1, 1])
    logits = tuple(torch.eye(2)[torch.tensor(answer)] for answer in ([0, 1, 1], [1, 0, 0], [0, 1, 0], [1, 1, 0]))
    ingredients = tuple(Ingredient(f"{i:03d}", "", f"{i}" * 64, None) for i in range(4))
    pool = Pool(ingredients=ingredients, logits=logits, labels_N=labels_N, state=None, evaluate=None, gradient=None)
    soup = names["top_half"](pool)
    assert (soup.ingredients, soup.coefficients) == (("000", "002"), {"*": [0.5, 0.5]})


def test_the_documentation_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="no mkdocs (pip install modelsoups[docs])")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r"""<(?:link|script|img)[^>]+(?:href|src)=["']https?://""", text), page


def test_messages_of_the_troubleshooting_page_are_in_the_code():
    code = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    joined = re.sub(r'"\s*f?"', "", code)  # a message may be written in several strings
    rows = re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs/faq.md").read_text(), re.MULTILINE)
    assert len(rows) >= 20
    for row in rows:
        for part in row.split("..."):
            assert part.strip() in joined, row

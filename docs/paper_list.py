"""Writes the list of the paper's figures and tables, which the package prints, into docs/paper.md.

Usage: python docs/paper_list.py
"""

from pathlib import Path

from modelsoups.published import index

PAGE = Path(__file__).resolve().parent / "paper.md"
BEGIN = "<!-- The list: python docs/paper_list.py writes it. -->\n"
END = "<!-- End of the list -->\n"


def with_list(page: str) -> str:
    """Return the page with the list between its two marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{index.markdown()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_list(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

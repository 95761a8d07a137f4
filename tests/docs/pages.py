"""The handbook's files, and what is in them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


def fenced(page: Path, language: str) -> list[str]:
    """Give the contents of a page's fenced blocks of one language."""
    found = re.findall(
        rf"^( *)```{language}[^\n]*\n(.*?)^\1```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    return [text for _, text in found]


def in_one_line(text: str) -> str:
    """Give a text without its line ends and indents, so that it can be looked for wherever lines are broken."""
    return " ".join(text.split())

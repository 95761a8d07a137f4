"""What a benchmark has found, as text for a terminal and as Markdown for the handbook."""

from __future__ import annotations

import os
import platform
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Goal:
    """What is to be reached: `found` has to be `bound` or more, or with `at_most` no more; None: not measured."""

    what: str
    found: float | None
    bound: float
    at_most: bool = False
    unit: str = ""

    @property
    def is_met(self) -> bool:
        """Whether it is reached."""
        if self.found is None:
            return False
        return self.found <= self.bound if self.at_most else self.found >= self.bound

    def cells(self) -> tuple[str, ...]:
        """Give it as a row of a table."""
        sign = "≤" if self.at_most else "≥"
        found = "not measured" if self.found is None else f"{figure(self.found)}{self.unit}"
        verdict = "not measured" if self.found is None else "met" if self.is_met else "not met"
        return self.what, f"{sign} {self.bound:,g}{self.unit}", found, verdict


_GOAL_COLUMNS = ("goal", "bound", "found", "")


@dataclass(frozen=True, slots=True)
class Table:
    """One group's figures. The first column names the row; `notes` are sentences that stand below."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    goals: Sequence[Goal] = ()
    notes: Sequence[str] = field(default=())


def figure(number: float | None, digits: int = 3) -> str:
    """Write a number with so many significant digits, but no digit before the point is dropped; None is a dash."""
    if number is None:
        return "-"
    if number == 0:
        return "0"
    places = digits
    size = abs(number)
    while size >= 1 and places > 0:
        size /= 10
        places -= 1
    text = f"{number:,.{places}f}"
    return text.rstrip("0").rstrip(".") if number == int(number) and "." in text else text


def text(table: Table) -> str:
    """Give a table for a terminal."""
    parts = [table.title, _aligned([table.columns, *table.rows])]
    if table.goals:
        parts.append(_aligned([_GOAL_COLUMNS, *(goal.cells() for goal in table.goals)]))
    return "\n\n".join([*parts, *table.notes]) + "\n"


def markdown(table: Table) -> str:
    """Give a table for a page."""
    parts = [f"**{table.title}**", _piped([table.columns, *table.rows])]
    if table.goals:
        parts.append(_piped([_GOAL_COLUMNS, *(goal.cells() for goal in table.goals)]))
    return "\n\n".join([*parts, *table.notes])


def machine() -> str:
    """Describe the machine, without saying which one it is: processor, cores, memory, kernel, Python."""
    found = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+)", _read("/proc/meminfo"), re.MULTILINE)
    parts = [
        f"{os.cpu_count()} cores of {found[1].strip() if found else platform.machine()}",
        f"{int(memory[1]) / 2**20:.0f} GiB of memory" if memory else "",
        # A kernel's own release says more than its number: who has built it, and for what.
        f"{platform.system()} {re.split(r'[^0-9.]', platform.release())[0]}",
        f"{platform.python_implementation()} {platform.python_version()}",
    ]
    return ", ".join(part for part in parts if part)


def with_section(page: str, name: str, section: str) -> str:
    """Give a page with a section made anew: what stands between its two comments.

    Raises `LookupError` where the page has no such section.
    """
    begin, end = f"<!-- measured: {name} -->", f"<!-- end of {name} -->"
    head, found, rest = page.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise LookupError(f"the page has no section between {begin} and {end}")
    return f"{head}{begin}\n\n{section}\n\n{end}{tail}"


def tell(news: str) -> None:
    """Say how far it is, beside the output: a whole run takes its time."""
    print(news, file=sys.stderr, flush=True)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        first, *others = (
            cell.ljust(width) if not n else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *others]).rstrip())
    return "\n".join(lines)


def _piped(rows: Sequence[Sequence[str]]) -> str:
    head, *body = (f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)
    rule = "| --- |" + " ---: |" * (len(rows[0]) - 1)
    return "\n".join([head, rule, *body])


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""

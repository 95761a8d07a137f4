"""A competitor's side of a benchmark: ready, go, done. It is a process of its own, and imports next to nothing here."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

READY, GO, DONE = "ready", "go", "done"


def new_parser(description: str) -> argparse.ArgumentParser:
    """Make a parser with what every competitor is told: where the mail is, who may read it, where it has to go."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--url", required=True)
    parser.add_argument("--user", required=True)
    parser.add_argument("--password", required=True)
    parser.add_argument("--into", type=Path, required=True, help="an empty directory")
    return parser


def take_turn(work: Callable[[], int]) -> None:
    """Say that all is imported, wait for the word, do the work, say how many emails it was, and wait to be let go.

    It is measured from the word to the answer: what starting takes does not count, for nobody.
    """
    print(READY, flush=True)
    sys.stdin.readline()
    print(DONE, work(), flush=True)
    sys.stdin.readline()

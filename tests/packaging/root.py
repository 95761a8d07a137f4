"""Where the files of the project lie that belong to no package."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]

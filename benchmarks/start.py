"""How long the command takes to start: to say its version, and to do its work. A group of the benchmark."""

from __future__ import annotations

import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.appliance import COMMAND, appliance
from benchmarks.servers import Load, servers

_STARTS_WITHIN = 60.0
_RUNS = 5


@dataclass(frozen=True, slots=True)
class StartFigures:
    """Seconds, medians: for `--version`, and from the start until /readyz says 200, which took `processor`."""

    version: float
    ready: float
    processor: float


def measure(mailboxes: int, runs: int = _RUNS) -> StartFigures:
    """Start it so many times, with so many mailboxes that have a little mail."""
    load = Load(mailboxes=mailboxes, messages=10, size=2_000)
    versions = [_version() for _ in range(runs)]
    with tempfile.TemporaryDirectory() as name, servers(load, Path(name)) as both:
        starts = []
        for _ in range(runs):
            with tempfile.TemporaryDirectory(dir=name) as room:
                begun = time.monotonic()
                with appliance(load, "jsonl", both, Path(room)) as running:
                    running.wait_until_ready(_STARTS_WITHIN)
                    starts.append((time.monotonic() - begun, running.processor))
    return StartFigures(
        median(versions), median(seconds for seconds, _ in starts), median(processor for _, processor in starts)
    )


def _version() -> float:
    begun = time.monotonic()
    subprocess.run([*COMMAND, "--version"], check=True, stdout=subprocess.DEVNULL, timeout=_STARTS_WITHIN)
    return time.monotonic() - begun

"""Into the platform, against into files: emails a second, processor time, peak memory. `make bench`.

The real command runs as a process of its own, once for each row, on the same mail.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from benchmarks.appliance import appliance
from benchmarks.servers import Addresses, Load, servers

_LIMIT = 600.0


@dataclass(frozen=True, slots=True)
class Figures:
    """One run: emails a second, processor milliseconds an email, and the highest resident set in MiB."""

    rate: float
    processor: float
    peak: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    small = Load(mailboxes=4, messages=1000, size=24_000)
    one = Load(mailboxes=1, messages=2000, size=24_000)
    large = Load(mailboxes=1, messages=20, size=20_000_000)
    _table("4 mailboxes x 1,000 emails of 24 KB", small, ("jsonl", "eml", "platform 0 ms", "platform 20 ms"), rounds)
    _table("1 mailbox x 2,000 emails of 24 KB", one, ("jsonl", "platform 0 ms", "platform 20 ms"), rounds)
    _table("20 messages of 20 MB, 8 workers", large, ("jsonl", "platform 20 ms"), 1)


def _table(title: str, load: Load, sinks: tuple[str, ...], rounds: int) -> None:
    print(f"\n{title}; medians of {rounds}")
    print(f"{'into':<16}{'emails/s':>10}{'ratio':>8}{'CPU ms/email':>14}{'peak MiB':>10}")
    results: dict[str, list[Figures]] = {sink: [] for sink in sinks}
    for _ in range(rounds):
        for sink in sinks:
            kind, _, latency = sink.partition(" ")
            slow = replace(load, platform_latency=float(latency.removesuffix(" ms") or 0) / 1000)
            with tempfile.TemporaryDirectory() as directory, servers(slow, Path(directory)) as addresses:
                results[sink].append(_measure(slow, kind, addresses, Path(directory)))
    base = median(figures.rate for figures in results[sinks[0]])
    for sink, runs in results.items():
        rate, processor, peak = (median(getattr(run, name) for run in runs) for name in Figures.__slots__)
        print(f"{sink:<16}{rate:>10.1f}{rate / base:>8.2f}{processor:>14.2f}{peak:>10.1f}")


def _measure(load: Load, sink: str, addresses: Addresses, directory: Path) -> Figures:
    with appliance(load, sink, addresses, directory) as running:
        running.wait_until_listening(_LIMIT)
        started = time.monotonic()
        running.wait_until_done(load.emails, _LIMIT)
        rate = load.emails / (time.monotonic() - started)
        return Figures(rate, running.processor * 1000 / load.emails, running.peak / 1024**2)


if __name__ == "__main__":
    main()

"""All of the benchmark: the command beside exchangelib and the floor, and what it costs. `make bench`.

One run takes about 20 minutes. Figures compare within one run only. `--write` puts them into the handbook's page.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import alone, contests
from benchmarks.report import Table, machine, markdown, tell, text, with_section

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Group = Callable[[int], "Sequence[Table]"]

GROUPS: Mapping[str, Group] = {
    "backfill": lambda rounds: [contests.backfill(rounds)],
    "latency": lambda rounds: [contests.latency(rounds)],
    "platform": lambda rounds: [contests.platform(rounds)],
    "quiet": lambda _: alone.quiet_mailboxes(),
    "million": lambda _: alone.large_folder(),
    "start": lambda _: alone.starting(),
}
"""What can be measured, in this order; each takes the number of rounds."""


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often all contenders run (default: %(default)s)")
    parser.add_argument("--only", choices=tuple(GROUPS), action="append", help="measure this group; may be repeated")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the figures into their sections of this page")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds has to be 1 or more")
    names = options.only or list(GROUPS)
    if options.write:
        try:
            # Before anything is measured: it takes its time.
            for name in names:
                with_section(options.write.read_text(encoding="utf-8"), name, "")
        except (OSError, LookupError) as error:
            parser.error(f"--write: {error}")
    print(f"{machine()}\n")
    failed = []
    for name in names:
        tables = _measured(name, options.rounds)
        if not tables:
            failed.append(name)
            continue
        print("\n".join(text(table) for table in tables), flush=True)
        if options.write:
            # Each group at once: a run that is stopped later has not been in vain.
            page = options.write.read_text(encoding="utf-8")
            options.write.write_text(with_section(page, name, section(tables)), encoding="utf-8")
    if failed:
        raise SystemExit(f"could not be measured: {', '.join(failed)}")


def section(tables: Sequence[Table]) -> str:
    """Give a group's section of the page: where and when it was measured, and its tables."""
    when = f"Measured {datetime.now(UTC):%Y-%m-%d} on {machine()}."
    return "\n\n".join([when, *(markdown(table) for table in tables)])


def _measured(name: str, rounds: int) -> Sequence[Table]:
    """Measure a group; nothing where that fails, which is told."""
    tell(f"--- {name}")
    try:
        return GROUPS[name](rounds)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a group that fails does not take the others with it
        tell(f"{name} failed: {type(error).__name__}: {error}")
        return ()


if __name__ == "__main__":
    main()

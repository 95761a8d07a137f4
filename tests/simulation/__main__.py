"""Run many seeds, or one that is to be looked at: `python -m tests.simulation --seeds 10000` and `--seed N`."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.simulation.invariants import ViolatedError
from tests.simulation.plan import plan_for
from tests.simulation.simulation import Figures, Simulation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MOST_SHOWN = 5
"""Failures that are told in full."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a seed: figures, or a report of what failed."""

    seed: int
    figures: Figures | None
    report: str = ""


def run_seed(seed: int, *, traced: bool = False) -> Outcome:
    """Run one seed. A failure comes as a report, never as an error."""
    simulation = Simulation(plan_for(seed), traced=traced)
    try:
        figures = simulation.run()
    except Exception as error:  # noqa: BLE001 - whatever it is, the seed that shows it has to be told
        return Outcome(seed, None, explain(simulation, error, traced=traced))
    trace = "\n".join(map(str, simulation.history.events)) if traced else ""
    return Outcome(seed, figures, trace)


def explain(simulation: Simulation, error: Exception, *, traced: bool = False) -> str:
    """Say what failed, in which plan, how to see it again, and what happened to the email concerned."""
    name = error.name if isinstance(error, ViolatedError) else ""
    history = simulation.history
    story = history.of(name) if name and not traced else [str(event) for event in history.events]
    if not name and not traced:
        story = story[-60:]
    cause = f"\n  because of {error.__cause__!r}" if error.__cause__ is not None else ""
    return "\n".join(
        [
            f"seed {simulation.plan.seed}: {type(error).__name__}: {error}{cause}",
            "the plan:",
            str(simulation.plan),
            f"what happened{f' to {name}' if name else ''}:",
            *story,
            f"seed {simulation.plan.seed}: {error}",
            f"see it again with: python -m tests.simulation --seed {simulation.plan.seed}",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; 1 when a seed failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=2, help="how many processes share them")
    parser.add_argument("--seed", type=int, help="run this one alone, and tell everything that happens")
    options = parser.parse_args(arguments)
    if options.seed is not None:
        outcome = run_seed(options.seed, traced=True)
        _say(outcome.report)
        return 0 if outcome.figures is not None else 1
    seeds = range(options.first, options.first + options.seeds)
    with multiprocessing.Pool(options.jobs) as pool:
        return _sum_up(pool.imap_unordered(run_seed, seeds, chunksize=20), len(seeds), options.jobs)


def _sum_up(outcomes: Iterable[Outcome], count: int, jobs: int) -> int:
    began = time.monotonic()
    done: list[Figures] = []
    failed: list[int] = []
    faults: Counter[str] = Counter()
    for number, outcome in enumerate(outcomes, start=1):
        if outcome.figures is None:
            failed.append(outcome.seed)
            if len(failed) <= _MOST_SHOWN:
                _say(outcome.report)
        else:
            done.append(outcome.figures)
            faults += outcome.figures.faults
        if number % 500 == 0 or number == count:
            _say(f"{number} of {count} seeds, {len(failed)} failed, {time.monotonic() - began:.0f}s")
    took = time.monotonic() - began
    _say(
        f"{len(done)} runs held: {sum(one.processes for one in done)} processes, "
        f"{sum(one.crashes for one in done)} crashes, {sum(one.emails for one in done)} emails stored "
        f"{sum(one.uploads for one in done)} times, {sum(one.seconds for one in done) / 86400:.1f} virtual days, "
        f"{sum(one.steps for one in done)} callbacks, {took * jobs / max(1, count):.3f} seconds per seed"
    )
    _say("faults: " + ", ".join(f"{kind} {number}" for kind, number in sorted(faults.items())))
    if failed:
        _say(f"{len(failed)} seeds FAILED: {' '.join(map(str, sorted(failed)[:50]))}")
        _say(f"see one with: python -m tests.simulation --seed {min(failed)}")
    return 1 if failed else 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

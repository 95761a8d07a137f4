"""A few hundred seeds, and that a seed says everything about its run."""

from __future__ import annotations

import pytest

from tests.simulation.__main__ import main, run_seed
from tests.simulation.plan import TROUBLE, plan_for
from tests.simulation.simulation import Simulation

CHUNK = 25


@pytest.mark.parametrize("first", range(0, 400, CHUNK))
def test_nothing_is_lost(first: int) -> None:
    failed = [outcome for seed in range(first, first + CHUNK) if (outcome := run_seed(seed)).figures is None]
    assert not failed, "\n\n".join(outcome.report for outcome in failed)


def test_a_seed_is_the_same_run_each_time() -> None:
    def trace(seed: int) -> list[str]:
        simulation = Simulation(plan_for(seed))
        simulation.run()
        return [str(event) for event in simulation.history.events]

    for seed in range(3, 8):
        assert trace(seed) == trace(seed)


def test_the_first_seeds_have_everything_in_them() -> None:
    plans = [plan_for(seed) for seed in range(400)]
    assert {plan.sink for plan in plans} == {"files", "platform", "lines"}
    assert {act.kind for plan in plans for act in plan.acts} >= set(TROUBLE)
    assert {plan.pace.max_concurrent_uploads for plan in plans} == {0, 1, 8}


def test_one_seed_is_told_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "3"]) == 0
    told = capsys.readouterr().out
    assert "a new process" in told
    assert "nothing fails any more" in told

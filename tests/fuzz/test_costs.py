"""Hostile input is refused before it costs much: measured in processes of their own, C libraries included."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.fuzz.costs import ANSWERS, CONFIGS, MESSAGES

MOST_MB = {"answer": 40, "config": 64, "message": 8}
"""Resident memory that reading may add. A config's own values take most of what is allowed there."""
MOST_SECONDS_PER_MB = 8.0
"""On a busy machine; on an idle one it is a quarter of that. What is quadratic takes minutes."""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_hostile_input_costs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.costs", "--json"], check=True, capture_output=True, timeout=240
    )
    costs = json.loads(done.stdout)
    assert len(costs) == len(ANSWERS) + len(CONFIGS) + len(MESSAGES)
    large = {name: cost for name, cost in costs.items() if cost["memory_mb"] > MOST_MB[name.partition(":")[0]]}
    assert large == {}
    slow = {
        name: cost
        for name, cost in costs.items()
        if cost["seconds"] > MOST_SECONDS_PER_MB * max(0.25, cost["taken_mb"])
    }
    assert slow == {}

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from benchmarks.process import peak_bytes, processor_seconds, resident_bytes


def test_the_processor_time_of_a_process_is_its_own_clock() -> None:
    before = time.process_time()
    found = processor_seconds(os.getpid())
    assert before <= found <= time.process_time()


def test_the_peak_is_never_below_what_it_takes() -> None:
    # Not the other way round: what is resident can grow between two looks. The kernel counts to some pages only.
    resident = resident_bytes(os.getpid())
    assert 2**22 < resident <= peak_bytes(os.getpid()) + 2**20


def test_a_process_that_is_gone_has_no_clock() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait(30)
    with pytest.raises(ProcessLookupError):
        processor_seconds(process.pid)

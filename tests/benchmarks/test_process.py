from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from benchmarks.process import open_descriptors, peak_bytes, processor_seconds, resident_bytes, thread_count


def test_the_processor_time_of_a_process_is_its_own_clock() -> None:
    before = time.process_time()
    found = processor_seconds(os.getpid())
    assert before <= found <= time.process_time()


def test_the_peak_is_never_below_what_it_takes() -> None:
    # Not the other way round: what is resident can grow between two looks. The kernel counts to some pages only.
    resident = resident_bytes(os.getpid())
    assert 2**22 < resident <= peak_bytes(os.getpid()) + 2**20


def test_open_descriptors_and_threads_are_counted() -> None:
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, threading; os.dup(1); threading.Thread(target=input).start(); print('ready', flush=True)",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert (open_descriptors(process.pid), thread_count(process.pid)) == (4, 2)
        process.communicate(b"\n", 30)


def test_of_a_process_that_is_gone_nothing_can_be_told() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait(30)
    with pytest.raises(ProcessLookupError):
        processor_seconds(process.pid)
    for look in (peak_bytes, resident_bytes, open_descriptors, thread_count):
        with pytest.raises(OSError, match=str(process.pid)):
            look(process.pid)


def test_of_one_that_has_ended_but_was_not_waited_for_there_is_no_memory_to_tell() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        for look in (peak_bytes, resident_bytes):
            with pytest.raises(ProcessLookupError):
                look(process.pid)

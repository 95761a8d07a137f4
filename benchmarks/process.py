"""What the system tells of a process: its processor time, its memory, its open files, its threads."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path


def processor_seconds(pid: int) -> float:
    """Give the processor time in seconds that a process has had, all threads and the kernel's work for it included.

    Read from the process's own clock (POSIX, clock_getcpuclockid), because /proc counts in hundredths of a second.
    Raises `ProcessLookupError` where there is none.
    """
    clock = ctypes.c_int()
    error = ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock))
    if error:
        raise ProcessLookupError(error, os.strerror(error))
    return time.clock_gettime(clock.value)


def peak_bytes(pid: int) -> int:
    """Give the highest resident set of a process so far, in bytes. Raises `OSError` where there is none."""
    return 1024 * _status(pid, "VmHWM")


def resident_bytes(pid: int) -> int:
    """Give the resident set of a process, in bytes. Raises `OSError` where there is none."""
    return 1024 * _status(pid, "VmRSS")


def thread_count(pid: int) -> int:
    """Give how many threads a process has. Raises `OSError` where there is none."""
    return _status(pid, "Threads")


def open_descriptors(pid: int) -> int:
    """Give how many descriptors a process has open. Raises `OSError` where there is none."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise ProcessLookupError(f"the system does not tell a process's {name}")

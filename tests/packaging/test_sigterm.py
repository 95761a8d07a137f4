"""The image's entry point starts the command with SIGTERM held back: none is lost while Python begins."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

COMMAND = "import sys; from ews_sync.cli import main; sys.exit(main())"


def end_while_held_back(*arguments: str) -> int:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        running = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-c", COMMAND, *arguments],
            env={key: value for key, value in os.environ.items() if not key.startswith("REINFER_")},
            stderr=subprocess.DEVNULL,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    running.send_signal(signal.SIGTERM)
    return running.wait(60)


# Without a signal each would end with 2: there is no config.
@pytest.mark.parametrize(("arguments", "code"), [([], 0), (["run"], 0), (["check"], 128 + signal.SIGTERM)])
def test_one_that_comes_at_once_is_heard(arguments: list[str], code: int) -> None:
    assert end_while_held_back(*arguments) == code


def test_a_demo_ends_too() -> None:
    assert end_while_held_back("demo", "--directory", "/proc/none") == 0

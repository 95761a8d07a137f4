from __future__ import annotations

import multiprocessing
import os
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from benchmarks.server_process import Served, server_process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


@asynccontextmanager
async def serve(mark: Path, *, number: int) -> AsyncIterator[Served]:
    answers: dict[str, Callable[..., object]] = {
        "pid": os.getpid,
        "add": lambda one, other: number + one + other,
        "end": lambda: os._exit(1),
    }
    yield Served(("http://one", "http://other"), answers)
    write(mark)


def write(mark: Path) -> None:
    mark.write_text("ended in order")


@asynccontextmanager
async def serve_or_end(code: int) -> AsyncIterator[Served]:
    if code:
        os._exit(code)
    yield Served((), {})


def test_servers_are_in_a_process_of_their_own_that_answers_questions(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with server_process(serve, mark, number=1) as server:
        assert server.urls == ("http://one", "http://other")
        assert server.ask("add", 2, 3) == 6
        assert server.ask("pid") != os.getpid()
        assert server.peak > 2**22
        assert 0 < server.processor < 60
        assert not mark.exists()
    assert mark.read_text() == "ended in order"
    assert multiprocessing.active_children() == []


def test_one_that_is_gone_is_told_and_not_waited_for(tmp_path: Path) -> None:
    with server_process(serve, tmp_path / "mark", number=0) as server:
        os.kill(server.ask("pid"), signal.SIGKILL)
        with pytest.raises(SystemExit, match="ended by themselves"):
            server.ask("add", 1, 2)
    with server_process(serve, tmp_path / "mark", number=0) as server:
        for question in ("end", "pid"):
            with pytest.raises(SystemExit, match="ended by themselves"):
                server.ask(question)


def test_one_that_does_not_start_is_told() -> None:
    with pytest.raises(SystemExit, match="ended by themselves"), server_process(serve_or_end, 1):
        pytest.fail("it did")

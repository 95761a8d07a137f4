"""Servers in a process of their own, which answers questions about them.

What measures and what is measured share nothing with them but the network, and a pipe for the questions.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec

from benchmarks.process import peak_bytes, processor_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractAsyncContextManager
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

_STARTS_WITHIN = 900.0
"""Seconds, and only so that nobody waits forever: a million messages take some minutes."""
_ANSWERS_WITHIN = 60.0


@dataclass(frozen=True, slots=True)
class Served:
    """Servers that run: where they are, and what gives the answer to each question that they can be asked."""

    urls: tuple[str, ...]
    answers: Mapping[str, Callable[..., object]]


class ServerProcess:
    """A process with servers, seen from outside. `urls` are where they are."""

    def __init__(self, process: BaseProcess, pipe: Connection) -> None:
        self._process = process
        self._pipe = pipe
        with _its_end_told():
            self.urls: tuple[str, ...] = self._answer(_STARTS_WITHIN)

    @property
    def processor(self) -> float:
        """The processor time in seconds that it has had."""
        return processor_seconds(self._pid)

    @property
    def peak(self) -> int:
        """The highest resident set so far, in bytes."""
        return peak_bytes(self._pid)

    def ask(self, question: str, *arguments: object) -> Any:  # noqa: ANN401 - each question has an answer of its own
        """Ask one of the questions of `Served.answers`. Raises `SystemExit` when there is no answer."""
        with _its_end_told():
            self._pipe.send((question, arguments))
            return self._answer(_ANSWERS_WITHIN)

    @property
    def _pid(self) -> int:
        assert self._process.pid is not None  # noqa: S101 - it was started
        return self._process.pid

    def _answer(self, within: float) -> Any:  # noqa: ANN401 - likewise
        if not self._pipe.poll(within):
            raise SystemExit("the servers of the benchmark do not answer")
        return self._pipe.recv()


@contextmanager
def _its_end_told() -> Iterator[None]:
    try:
        yield
    except (EOFError, ConnectionError):
        raise SystemExit("the servers of the benchmark ended by themselves") from None


_Arguments = ParamSpec("_Arguments")


@contextmanager
def server_process(
    serve: Callable[_Arguments, AbstractAsyncContextManager[Served]],
    *arguments: _Arguments.args,
    **named: _Arguments.kwargs,
) -> Iterator[ServerProcess]:
    """Run what `serve` gives, in a process of its own, while the block runs.

    `serve` is a function of a module, and it is called there. Raises `SystemExit` when the servers do not start.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(theirs, serve, *arguments), kwargs=named, daemon=True)
    process.start()
    # The other end is the process's alone, so that its end is seen here.
    theirs.close()
    try:
        yield ServerProcess(process, ours)
    finally:
        # This tells it to end.
        ours.close()
        process.join(20)
        process.kill()


# --- In the process --------------------------------------------------------------------------------------------------


def _run(
    pipe: Connection,
    serve: Callable[_Arguments, AbstractAsyncContextManager[Served]],
    *arguments: _Arguments.args,
    **named: _Arguments.kwargs,
) -> None:
    asyncio.run(_answer_all(pipe, serve(*arguments, **named)))


async def _answer_all(pipe: Connection, serving: AbstractAsyncContextManager[Served]) -> None:
    async with serving as served:
        pipe.send(served.urls)
        while True:
            try:
                question, arguments = await asyncio.to_thread(pipe.recv)
            except (EOFError, ConnectionError):
                return
            pipe.send(served.answers[question](*arguments))

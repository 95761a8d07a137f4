"""What the engine logs, heard instead of printed."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from structlog.typing import EventDict, WrappedLogger


@contextmanager
def listening(hear: Callable[[EventDict], None], *, everything: bool) -> Iterator[None]:
    """Have `hear` called for each line that is logged meanwhile: errors, or everything."""

    def listen(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        hear(event)
        raise structlog.DropEvent

    before = structlog.get_config()
    level = logging.DEBUG if everything else logging.ERROR
    structlog.configure(
        processors=[listen],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**before)

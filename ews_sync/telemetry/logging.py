"""The log: structlog and the standard library's loggers through one set of processors, to one stream.

JSON lines, or coloured key=value on a terminal. Debug level 0: INFO and above. 1: our own DEBUG besides. 2: everybody's
DEBUG, and tracebacks. At every level secrets are masked and message content is left out (see `redaction.py`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
import traceback
from typing import TYPE_CHECKING, Any, TextIO

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structlog.typing import EventDict, Processor, WrappedLogger

    from ews_sync.telemetry.redaction import Redactor

OWN = "ews_sync"
_REQUEST_LOGS = ("httpx", "httpcore", "aiohttp.access")
"""One INFO line for every request says nothing that the service's own lines and the metrics do not say better."""
_STRANGERS = "aiohttp.server"
# At their debug level they write down whole log-on messages.
_NEVER_DEBUG = ("spnego", "msal")
_UPSETTING = re.compile("[\\x7f-\\x9f\\u2028\\u2029\\ud800-\\udfff]")
"""What JSON lets through, and a terminal, a collector of lines or UTF-8 does not take."""


def configure_logging(debug_level: int, *, stream: TextIO, redactor: Redactor, force_json: bool | None = None) -> None:
    """Set up the process's logging. Calling it again replaces what the last call did.

    `stream` takes the lines; they are JSON unless it is a terminal, or as `force_json` says.
    """
    json_lines = not stream.isatty() if force_json is None else force_json
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        # A cached logger would keep the processors of the configuration before.
        cache_logger_on_first_use=False,
    )
    handler = _Handler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _exceptions(with_traceback=debug_level >= 2),
                _redacted(redactor, one_line=not json_lines),
                _renderer(json_lines=json_lines),
            ],
        )
    )
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if debug_level >= 2 else logging.INFO)
    logging.getLogger(OWN).setLevel(logging.DEBUG if debug_level >= 1 else logging.INFO)
    for name in _REQUEST_LOGS:
        logging.getLogger(name).setLevel(logging.NOTSET if debug_level >= 2 else logging.WARNING)
    # What strangers send to the page's address is no trouble of ours: a scanner would fill the log with errors.
    logging.getLogger(_STRANGERS).setLevel(logging.NOTSET if debug_level >= 2 else logging.CRITICAL)
    for name in _NEVER_DEBUG:
        logging.getLogger(name).setLevel(logging.INFO)
    logging.captureWarnings(capture=True)


class _Handler(logging.StreamHandler[TextIO]):
    """Like its parent, but for a line that cannot be formatted: its parts are not shown, they could be secrets."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the parent's name
        # When the stream is gone, there is nowhere left to say so.
        with contextlib.suppress(OSError, ValueError):
            self.stream.write(f"a log line of {record.name} could not be written\n")


def _renderer(*, json_lines: bool) -> Processor:
    if json_lines:
        return _as_json
    return structlog.dev.ConsoleRenderer(colors=True)


def _as_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    line = json.dumps(event, ensure_ascii=False, default=repr)
    return _UPSETTING.sub(lambda match: f"\\u{ord(match[0]):04x}", line)


def _redacted(redactor: Redactor, *, one_line: bool) -> Processor:
    def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        plain = redactor.mapping(event)
        return {key: _printable(value) for key, value in plain.items()} if one_line else plain

    return redact


def _printable(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Escape what a server could send to upset a terminal, or to look like another line."""
    if isinstance(value, str):
        return "".join(
            letter if letter.isprintable() else letter.encode("unicode_escape", "backslashreplace").decode("ascii")
            for letter in value
        )
    if isinstance(value, list):
        return [_printable(entry) for entry in value]
    if isinstance(value, dict):
        return {_printable(key): _printable(entry) for key, entry in value.items()}
    return value


def _exceptions(*, with_traceback: bool) -> Processor:
    def render(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        info = event.pop("exc_info", None)
        error = _error_of(info)
        if error is not None:
            event["error"] = _in_one_line(error)
            if with_traceback:
                event["traceback"] = [
                    {"file": frame.filename, "line": frame.lineno, "function": frame.name}
                    for one in reversed([*_causes(error)])
                    for frame in traceback.extract_tb(one.__traceback__)
                ]
        return event

    return render


def _error_of(info: object) -> BaseException | None:
    if isinstance(info, BaseException):
        return info
    if isinstance(info, tuple):
        return info[1] if isinstance(info[1], BaseException) else None
    return sys.exc_info()[1] if info else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it came from, however that is linked, each one once."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _in_one_line(error: BaseException) -> str:
    return "; caused by ".join(" ".join(f"{type(one).__name__}: {one}".split()).rstrip(":") for one in _causes(error))

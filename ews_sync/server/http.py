"""The HTTP server on `--bind`: the page, /status, /metrics, /healthz, /readyz. It shows, and changes nothing.

Slow and hostile clients must not hurt the sync: connections are bounded in number, and a long answer is made
piece by piece, all answers together at most half of the time, with room for the sync in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from typing import TYPE_CHECKING

from aiohttp import web

from ews_sync.errors import ConfigurationError
from ews_sync.server.doorkeeper import Doorkeeper
from ews_sync.server.report import Folders, Moment, Wanted, as_text, json_pieces, knows
from ews_sync.server.webpage import load_page
from ews_sync.telemetry.metrics import CONTENT_TYPE, Metrics

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ews_sync.model import Clock
    from ews_sync.settings.values import Bind
    from ews_sync.telemetry.status import Status

_PIECE = 64 * 1024
_METRICS_STAY = 1.0
"""Seconds in which whoever asks for the metrics again gets the same ones."""
_ANSWER_WITHIN = 120.0
_TIDY_EVERY = 1.0
_SAFE = {
    "Server": "ews-sync",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
}


class StatusServer:
    """Serves the status until it is closed. `address` is where it really listens."""

    def __init__(self, bind: Bind, status: Status, clock: Clock) -> None:
        self._bind = bind
        self._status = status
        self._clock = clock
        self._page = load_page()
        self._metrics = Metrics(status, clock)
        self._metrics_text = ""
        self._metrics_until = float("-inf")
        self._reporting = asyncio.Lock()
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None
        self._tidying: asyncio.Task[None] | None = None
        self.address = str(bind)

    async def start(self) -> None:
        """Begin to listen. Raises `ConfigurationError` when the address cannot be used."""
        app = web.Application()
        app.router.add_get("/", self._root)
        app.router.add_get("/status", self._show)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._show_metrics)
        app.on_response_prepare.append(_harden)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0, keepalive_timeout=30)
        await runner.setup()
        handlers = runner.server
        if handlers is None:
            raise RuntimeError("a runner that is set up has a server")
        doorkeeper = Doorkeeper(handlers)
        try:
            self._listener = await asyncio.get_running_loop().create_server(
                doorkeeper, self._bind.host, self._bind.port, reuse_address=True
            )
        except OSError as error:
            await runner.cleanup()
            reason = os.strerror(error.errno).lower() if error.errno else str(error)
            raise ConfigurationError(
                (f"--bind: cannot listen at {self._bind}: {reason}; choose another address or stop what listens there",)
            ) from error
        for listening in self._listener.sockets:
            # What a client does not read is kept by the system, too; each connection inherits it.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PIECE)
        self._tidying = asyncio.create_task(self._tidy(doorkeeper), name="doorkeeper")
        self._runner = runner
        host, port = self._listener.sockets[0].getsockname()[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def aclose(self) -> None:
        """Stop listening."""
        if self._tidying is not None:
            self._tidying.cancel()
        if self._listener is not None:
            self._listener.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _tidy(self, doorkeeper: Doorkeeper) -> None:
        while True:
            await asyncio.sleep(_TIDY_EVERY)
            doorkeeper.tidy()

    def _moment(self) -> Moment:
        return Moment(self._clock.now(), self._clock.monotonic())

    async def _root(self, request: web.Request) -> web.StreamResponse:
        """Give the page to a browser, and the table to everybody else, such as `curl`."""
        if "text/html" not in request.headers.get("Accept", ""):
            return await self._text(request)
        headers = {"Content-Security-Policy": self._page.policy, "Vary": "Accept"}
        return web.Response(text=self._page.html, content_type="text/html", headers=headers)

    async def _show(self, request: web.Request) -> web.StreamResponse:
        mailbox = request.query.get("mailbox")
        if mailbox is not None and not knows(self._status, mailbox):
            return _json({"error": f"there is no mailbox {mailbox[:80]!r} here"}, status=404)
        match request.query.get("format", "json"):
            case "json":
                return await self._report(request)
            case "text":
                return await self._text(request)
            case other:
                return _json({"error": f"unknown format {other[:40]!r}: json or text"}, status=400)

    async def _report(self, request: web.Request) -> web.StreamResponse:
        try:
            folders = Folders(request.query.get("folders", Folders.ALL))
        except ValueError:
            return _json({"error": "unknown value of folders: all, failing or none"}, status=400)
        wanted = Wanted(request.query.get("mailbox"), folders)
        return await self._streamed(
            request, "application/json; charset=utf-8", json_pieces(self._status, self._moment(), wanted)
        )

    async def _text(self, request: web.Request) -> web.StreamResponse:
        return await self._streamed(
            request, "text/plain; charset=utf-8", [as_text(self._status, self._moment(), request.query.get("mailbox"))]
        )

    async def _streamed(self, request: web.Request, kind: str, pieces: Iterable[str]) -> web.StreamResponse:
        """Send a text that may be long, a bounded piece at a time."""
        response = web.StreamResponse(headers={"Content-Type": kind})
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        left = iter(pieces)
        # Who goes away in the middle, or does not read for too long, gets no more, and nobody needs to hear of it.
        with contextlib.suppress(ConnectionResetError, TimeoutError):
            async with asyncio.timeout(_ANSWER_WITHIN):
                while part := await self._next_part(left):
                    await response.write(part)
                await response.write_eof()
                return response
        if request.transport is not None:
            request.transport.abort()
        return response

    async def _next_part(self, pieces: Iterator[str]) -> bytes:
        """Make the next bytes of an answer; nothing when it is at its end."""
        async with self._reporting:
            began = self._clock.monotonic()
            part: list[str] = []
            size = 0
            for piece in pieces:
                part.append(piece)
                size += len(piece)
                if size >= _PIECE:
                    break
            # As long again for the sync, whoever else asks.
            await self._clock.sleep(self._clock.monotonic() - began)
        return "".join(part).encode()

    async def _show_metrics(self, request: web.Request) -> web.StreamResponse:
        now = self._clock.monotonic()
        if now >= self._metrics_until:
            self._metrics_text = self._metrics.text().decode()
            self._metrics_until = now + _METRICS_STAY
        text = self._metrics_text
        slices = (text[start : start + _PIECE] for start in range(0, len(text), _PIECE))
        return await self._streamed(request, CONTENT_TYPE, slices)

    async def _healthz(self, _: web.Request) -> web.Response:
        # Whoever reads this has been answered by the event loop; a task that dies ends the process.
        stuck = list(self._status.health.troubles)
        checks = {"event_loop": True, "nothing_stuck": not stuck}
        body = {"healthy": not stuck, "reasons": [f"stuck: {what}" for what in stuck], "checks": checks}
        return _json(body, status=503 if stuck else 200)

    async def _readyz(self, _: web.Request) -> web.Response:
        status = self._status
        checks = {
            "config_loaded": not status.config_missing,
            "source_answered": status.source_answered,
            "source_available": status.source_failure is None,
            "sink_answered": status.sink_answered,
            "sink_available": status.sink_failure is None,
            "not_failed": status.failure is None,
            "not_stopping": not status.stopping,
        }
        reasons = list(status.obstacles)
        return _json({"ready": not reasons, "reasons": reasons, "checks": checks}, status=503 if reasons else 200)


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(text=json.dumps(body, indent=2) + "\n", status=status, content_type="application/json")


async def _harden(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_SAFE)

"""The HTTP server on `--bind`: /healthz, /readyz, /status, /metrics. It shows, and changes nothing."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from aiohttp import web

from ews_sync.errors import ConfigurationError
from ews_sync.server.report import Moment, as_json, as_text
from ews_sync.telemetry.metrics import CONTENT_TYPE, Metrics

if TYPE_CHECKING:
    from ews_sync.model import Clock
    from ews_sync.settings.values import Bind
    from ews_sync.telemetry.status import Status


class StatusServer:
    """Serves the status until it is closed. `address` is where it really listens."""

    def __init__(self, bind: Bind, status: Status, clock: Clock) -> None:
        self._bind = bind
        self._status = status
        self._clock = clock
        self._metrics = Metrics(status, clock)
        self._runner: web.AppRunner | None = None
        self.address = str(bind)

    async def start(self) -> None:
        """Begin to listen. Raises `ConfigurationError` when the address cannot be used."""
        app = web.Application()
        app.router.add_get("/", self._text)
        app.router.add_get("/status", self._show)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._show_metrics)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0, keepalive_timeout=30)
        await runner.setup()
        site = web.TCPSite(runner, self._bind.host, self._bind.port)
        try:
            await site.start()
        except OSError as error:
            await runner.cleanup()
            reason = os.strerror(error.errno).lower() if error.errno else str(error)
            raise ConfigurationError(
                (f"--bind: cannot listen at {self._bind}: {reason}; choose another address or stop what listens there",)
            ) from error
        self._runner = runner
        host, port = runner.addresses[0][:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def aclose(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    def _moment(self) -> Moment:
        return Moment(self._clock.now(), self._clock.monotonic())

    async def _show(self, request: web.Request) -> web.Response:
        match request.query.get("format", "json"):
            case "json":
                return _json(as_json(self._status, self._moment()))
            case "text":
                return await self._text(request)
            case other:
                return _json({"error": f"unknown format {other[:40]!r}: json or text"}, status=400)

    async def _text(self, _: web.Request) -> web.Response:
        return web.Response(text=as_text(self._status, self._moment()))

    async def _healthz(self, _: web.Request) -> web.Response:
        # Whoever reads this has been answered by the event loop; a task that dies ends the process.
        stuck = list(self._status.health.troubles)
        checks = {"event_loop": True, "nothing_stuck": not stuck}
        body = {"healthy": not stuck, "reasons": [f"stuck: {what}" for what in stuck], "checks": checks}
        return _json(body, status=503 if stuck else 200)

    async def _show_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": CONTENT_TYPE})

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

"""The stand-in identity provider over HTTP, in Entra's layout of addresses."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aiohttp import web

from ews_sync.simulator.faults import Call, ConnectionReset, FaultPlan, Hang, HttpError, Latency
from ews_sync.simulator.identity.errors import RefusedError, unknown_tenant
from ews_sync.simulator.serving import Listener

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    from ews_sync.simulator.faults import Disturbance
    from ews_sync.simulator.identity.provider import IdentityProvider

CONFIGURATION = "openid-configuration"
TOKEN = "token"  # noqa: S105 - an operation's name
DISCOVERY = "instance-discovery"


class IdentityServer(Listener):
    """Serves one `IdentityProvider`. An asynchronous context manager; `port` 0 takes any that is free.

    `requests` counts by operation: "token", "openid-configuration", "instance-discovery". `faults` goes by the same
    names, and by the client id as account. `sleep` is what latency waits with. `host` is how the server names itself,
    too.
    """

    def __init__(  # noqa: PLR0913 - each is a part that can be exchanged
        self,
        provider: IdentityProvider,
        ssl_context: ssl.SSLContext | None = None,
        faults: FaultPlan | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        super().__init__(host, port, ssl_context)
        self.provider = provider
        self.faults = FaultPlan() if faults is None else faults
        self.requests: Counter[str] = Counter()
        self._sleep = sleep

    @property
    def authority(self) -> str:
        """What clients are told: the tenant's address."""
        return f"{self.root}/{self.provider.tenant}"

    @property
    def token_endpoint(self) -> str:
        """Where tokens are issued."""
        return f"{self.authority}/oauth2/v2.0/token"

    def application(self) -> web.Application:
        """Make what is served."""
        app = web.Application()
        app.router.add_get("/common/discovery/instance", self._discover)
        app.router.add_get("/{tenant}/v2.0/.well-known/openid-configuration", self._describe)
        app.router.add_post("/{tenant}/oauth2/v2.0/token", self._issue)
        return app

    async def _discover(self, request: web.Request) -> web.StreamResponse:
        async def answer() -> web.StreamResponse:
            return web.json_response(
                {
                    "tenant_discovery_endpoint": f"{self.authority}/v2.0/.well-known/openid-configuration",
                    "api-version": "1.1",
                    "metadata": [{"preferred_network": request.host, "aliases": [request.host]}],
                }
            )

        return await self._disturbed(request, Call(DISCOVERY), answer)

    async def _describe(self, request: web.Request) -> web.StreamResponse:
        async def answer() -> web.StreamResponse:
            self._check_tenant(request)
            return web.json_response(
                {
                    "issuer": f"{self.authority}/v2.0",
                    "authorization_endpoint": f"{self.authority}/oauth2/v2.0/authorize",
                    "token_endpoint": self.token_endpoint,
                    "jwks_uri": f"{self.authority}/discovery/v2.0/keys",
                    "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
                }
            )

        return await self._disturbed(request, Call(CONFIGURATION), answer)

    async def _issue(self, request: web.Request) -> web.StreamResponse:
        form = {name: value for name, value in (await request.post()).items() if isinstance(value, str)}

        async def answer() -> web.StreamResponse:
            self._check_tenant(request)
            token = self.provider.grant(form, {self.token_endpoint, f"{self.authority}/v2.0"})
            body: dict[str, Any] = {
                "token_type": "Bearer",
                "expires_in": round(token.lifetime),
                "ext_expires_in": round(token.lifetime),
                "access_token": token.value,
            }
            if token.refresh_in is not None:
                body["refresh_in"] = round(token.refresh_in)
            return web.json_response(body, headers={"Cache-Control": "no-store"})

        return await self._disturbed(request, Call(TOKEN, account=form.get("client_id", "")), answer)

    def _check_tenant(self, request: web.Request) -> None:
        tenant = request.match_info["tenant"]
        if tenant != self.provider.tenant:
            raise unknown_tenant(tenant)

    async def _disturbed(
        self, request: web.Request, call: Call, answer: Callable[[], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Count the request, and answer it unless a fault has it otherwise."""
        self.requests[call.operation] += 1
        nth = self.requests[call.operation]
        disturbance = self.faults.disturb(Call(call.operation, account=call.account, nth=nth))
        latency = disturbance.find(Latency)
        if latency is not None:
            await self._sleep(latency.seconds)
        failed = await self._failed(request, disturbance)
        if failed is not None:
            return failed
        try:
            return await answer()
        except RefusedError as refused:
            return _refusal(refused, request)

    async def _failed(self, request: web.Request, disturbance: Disturbance) -> web.StreamResponse | None:
        hangs = disturbance.find(Hang) is not None
        if hangs:
            await self.stopping.wait()
        if hangs or disturbance.find(ConnectionReset) is not None:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=499)  # goes nowhere: the connection is gone
        error = disturbance.find(HttpError)
        if error is None:
            return None
        headers = {**dict(error.headers), "Content-Type": error.content_type}
        if error.retry_after is not None:
            headers["Retry-After"] = error.retry_after
        return web.Response(status=error.status, body=error.body.encode(), headers=headers)


def _refusal(refused: RefusedError, request: web.Request) -> web.Response:
    """Return the error as Entra writes it: everything twice, in the text and beside it."""
    trace = str(uuid.uuid4())
    correlation = request.headers.get("client-request-id", str(uuid.uuid4()))
    timestamp = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}Z"
    text = (
        f"AADSTS{refused.code}: {refused.text} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {timestamp}"
    )
    body = {
        "error": refused.error,
        "error_description": text,
        "error_codes": [refused.code],
        "timestamp": timestamp,
        "trace_id": trace,
        "correlation_id": correlation,
        "error_uri": f"https://login.microsoftonline.com/error?code={refused.code}",
    }
    return web.json_response(body, status=refused.status)

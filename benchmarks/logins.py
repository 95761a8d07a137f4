"""NTLM over lanes, against Basic over a shared client: handshakes, throughput, and what cancellations leave behind.

The simulated Exchange runs in a process of its own. `python -m benchmarks.logins`.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import uvloop
from pydantic import SecretStr

from benchmarks.server_process import Served, server_process
from ews_sync.settings.exchange import BasicAuth, Exchange as ExchangeSettings, NtlmAuth
from ews_sync.simulator.access import Account
from ews_sync.simulator.ntlm import NtlmAuthenticator
from ews_sync.simulator.server import BasicAuthenticator, ExchangeServer
from ews_sync.simulator.store import Exchange
from ews_sync.sources.auth.login import log_in
from tests.sources.auth.ntlm_world import BODY, HEADERS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

USER, PASSWORD, MAILBOX = r"CORP\svc", "swordfish", "svc@bench.example"
_CONCURRENT = 16


@dataclass(frozen=True, slots=True)
class Counts:
    """What the server has seen."""

    connections: int
    handshakes: int
    early_bytes: int


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=2000)
    # The loop that the appliance runs on.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_measure(**vars(parser.parse_args())))


async def _measure(rounds: int, requests: int) -> None:
    print(f"{requests} requests, {_CONCURRENT} at a time; the server in a process of its own; medians of {rounds}")
    print(f"{'login':<8}{'requests/s':>12}{'ratio':>8}{'connections':>13}{'handshakes':>12}{'bodies in vain':>16}")
    rates: dict[str, list[float]] = {"basic": [], "ntlm": []}
    seen: dict[str, Counts] = {}
    for _ in range(rounds):
        for kind, results in rates.items():
            with server_process(_serve, kind) as server:
                (url,) = server.urls
                async with _client(kind, url) as http:
                    started = time.perf_counter()
                    good = await _good(http, url, requests)
                    results.append(requests / (time.perf_counter() - started))
                if good != requests:
                    raise SystemExit(f"{kind}: only {good} of {requests} requests were answered")
                seen[kind] = server.ask("counts")
    base = median(rates["basic"])
    for kind, results in rates.items():
        counts = seen[kind]
        tail = f"{counts.connections:>13}{counts.handshakes:>12}{counts.early_bytes:>16}" if kind == "ntlm" else ""
        print(f"{kind:<8}{median(results):>12.0f}{median(results) / base:>8.2f}{tail}")
    with server_process(_serve, "ntlm") as server:
        (url,) = server.urls
        async with _client("ntlm", url) as http:
            cancelled = await _hammer(http, url, 650)
            good = await _good(http, url, 2500)
    print(f"ntlm: after {cancelled} cancellations at random moments, {good} of 2500 requests were answered")


def _client(kind: str, url: str) -> httpx.AsyncClient:
    auth = (NtlmAuth if kind == "ntlm" else BasicAuth)(USER, SecretStr(PASSWORD))
    return log_in(ExchangeSettings(url, auth)).http


async def _good(http: httpx.AsyncClient, url: str, requests: int) -> int:
    """Send the requests; give how many were answered with 200."""
    good = 0
    left = iter(range(requests))

    async def work() -> None:
        nonlocal good
        for _ in left:
            response = await http.post(url, content=BODY, headers=HEADERS)
            good += response.status_code == 200

    await asyncio.gather(*(work() for _ in range(_CONCURRENT)))
    return good


async def _hammer(http: httpx.AsyncClient, url: str, wanted: int) -> int:
    """Cancel as many requests as wanted, each after a random while."""
    cancelled = 0
    while cancelled < wanted:
        tasks = [asyncio.create_task(http.post(url, content=BODY, headers=HEADERS)) for _ in range(50)]
        for task in tasks:
            asyncio.get_running_loop().call_later(random.random() * 0.06, task.cancel)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        cancelled += sum(isinstance(result, asyncio.CancelledError) for result in results)
    return cancelled


@asynccontextmanager
async def _serve(kind: str) -> AsyncIterator[Served]:
    # It tells of every connection that a cancellation cut.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    exchange = Exchange()
    exchange.create_mailbox(MAILBOX)
    accounts = [Account(USER, PASSWORD, mailbox=MAILBOX)]
    ntlm = NtlmAuthenticator(accounts)
    authenticator = ntlm if kind == "ntlm" else BasicAuthenticator(accounts)
    async with ExchangeServer(exchange, authenticator=authenticator) as server:

        def counts() -> Counts:
            return Counts(len(ntlm.connections), ntlm.handshakes, ntlm.early_bytes)

        yield Served((server.url,), {"counts": counts})


if __name__ == "__main__":
    main()

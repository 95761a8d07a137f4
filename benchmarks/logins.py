"""NTLM over lanes, against Basic over a shared client: handshakes, throughput, and what cancellations leave behind.

The simulated Exchange runs in a process of its own. `python -m benchmarks.logins`.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import multiprocessing
import random
import time
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import uvloop
from pydantic import SecretStr

from ews_sync.settings.exchange import BasicAuth, Exchange as ExchangeSettings, NtlmAuth
from ews_sync.simulator.access import Account
from ews_sync.simulator.ntlm import NtlmAuthenticator
from ews_sync.simulator.server import BasicAuthenticator, ExchangeServer
from ews_sync.simulator.store import Exchange
from ews_sync.sources.auth.login import log_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection as Pipe

    import httpx

USER, PASSWORD, MAILBOX = r"CORP\svc", "swordfish", "svc@bench.example"
_CONCURRENT = 16
_HEADERS = {"Content-Type": "text/xml; charset=utf-8"}
_FIND_FOLDER = b"""<?xml version="1.0" encoding="utf-8"?>
<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"
 xmlns:m="http://schemas.microsoft.com/exchange/services/2006/messages"
 xmlns:t="http://schemas.microsoft.com/exchange/services/2006/types"><s:Body><m:FindFolder Traversal="Shallow">
 <m:FolderShape><t:BaseShape>IdOnly</t:BaseShape></m:FolderShape>
 <m:ParentFolderIds><t:DistinguishedFolderId Id="inbox"/></m:ParentFolderIds></m:FindFolder></s:Body></s:Envelope>"""


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
            with _server(kind) as (url, pipe):
                async with _client(kind, url) as http:
                    started = time.perf_counter()
                    good = await _good(http, url, requests)
                    results.append(requests / (time.perf_counter() - started))
                if good != requests:
                    raise SystemExit(f"{kind}: only {good} of {requests} requests were answered")
                seen[kind] = _counts(pipe)
    base = median(rates["basic"])
    for kind, results in rates.items():
        counts = seen[kind]
        tail = f"{counts.connections:>13}{counts.handshakes:>12}{counts.early_bytes:>16}" if kind == "ntlm" else ""
        print(f"{kind:<8}{median(results):>12.0f}{median(results) / base:>8.2f}{tail}")
    with _server("ntlm") as (url, _):
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
            response = await http.post(url, content=_FIND_FOLDER, headers=_HEADERS)
            good += response.status_code == 200

    await asyncio.gather(*(work() for _ in range(_CONCURRENT)))
    return good


async def _hammer(http: httpx.AsyncClient, url: str, wanted: int) -> int:
    """Cancel as many requests as wanted, each after a random while."""
    cancelled = 0
    while cancelled < wanted:
        tasks = [asyncio.create_task(http.post(url, content=_FIND_FOLDER, headers=_HEADERS)) for _ in range(50)]
        for task in tasks:
            asyncio.get_running_loop().call_later(random.random() * 0.06, task.cancel)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        cancelled += sum(isinstance(result, asyncio.CancelledError) for result in results)
    return cancelled


@contextmanager
def _server(kind: str) -> Iterator[tuple[str, Pipe]]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(kind, theirs), daemon=True)
    process.start()
    try:
        yield ours.recv(), ours
    finally:
        ours.send("stop")
        process.join(20)
        process.kill()


def _counts(pipe: Pipe) -> Counts:
    pipe.send("count")
    counts = pipe.recv()
    assert isinstance(counts, Counts)  # noqa: S101 - our own process's answer
    return counts


def _serve(kind: str, pipe: Pipe) -> None:
    asyncio.run(_run(kind, pipe))


async def _run(kind: str, pipe: Pipe) -> None:
    # It tells of every connection that a cancellation cut.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    exchange = Exchange()
    exchange.create_mailbox(MAILBOX)
    accounts = [Account(USER, PASSWORD, mailbox=MAILBOX)]
    ntlm = NtlmAuthenticator(accounts)
    authenticator = ntlm if kind == "ntlm" else BasicAuthenticator(accounts)
    async with ExchangeServer(exchange, authenticator=authenticator) as server:
        pipe.send(server.url)
        while await asyncio.to_thread(pipe.recv) == "count":
            pipe.send(Counts(len(ntlm.connections), ntlm.handshakes, ntlm.early_bytes))


if __name__ == "__main__":
    main()

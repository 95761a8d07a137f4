"""An Exchange server that goes away and comes back, as an operator sees it: log, probes, /status, metrics."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx

from tests.end_to_end.platform_world import bare_environment, spawned

if TYPE_CHECKING:
    from tests.end_to_end.world import World

ADDRESSES = ("abc@example.com", "def@example.com", "ghi@example.com")
MAIL = b"Subject: one\r\nMessage-ID: <1@x>\r\n\r\nhello\r\n"


async def test_it_is_told_once_and_it_goes_on_by_itself(world: World) -> None:
    for address in ADDRESSES:
        world.mailbox(address).folder("Inbox").deliver(MAIL)
    path = world.directory.parent / "config.json"
    path.write_text(json.dumps(world.config(poll_frequency=0.2)))
    arguments = ("--local-files-prefix", str(world.directory), "--bind", "127.0.0.1:0")
    async with spawned(world, arguments, bare_environment() | {"REINFER_EWS_CONFIG": str(path)}) as command:
        await world.until(lambda: all(world.stored(address) for address in ADDRESSES), "the first emails")
        async with httpx.AsyncClient(base_url=command.address(), trust_env=False) as client:

            async def metric(name: str) -> float:
                text = (await client.get("/metrics")).text
                [line] = [line for line in text.splitlines() if line.startswith(f"{name} ")]
                return float(line.rpartition(" ")[2])

            assert (await client.get("/readyz")).status_code == 200
            assert await metric("ews_sync_source_up") == 1
            await world.server.stop()

            async def is_away() -> bool:
                return (await client.get("/readyz")).status_code == 503

            while not await is_away():
                assert command.process.returncode is None
            away = (await client.get("/readyz")).json()
            assert away["checks"]["source_available"] is False
            assert "nothing can be read since" in away["reasons"][0]
            assert world.server.url.split("/")[2] in away["reasons"][0]
            assert (await client.get("/healthz")).status_code == 200
            assert (await client.get("/status")).json()["source_failure"]["since"]
            # The same second may still show what was shown before.
            while await metric("ews_sync_source_up"):
                assert command.process.returncode is None

            for address in ADDRESSES:
                world.mailbox(address).folder("Inbox").deliver(MAIL.replace(b"<1@x>", b"<2@x>"))
            await world.server.start()
            await world.until(
                lambda: all(len(world.stored(address)) == 2 for address in ADDRESSES), "what came meanwhile", 60
            )
            assert (await client.get("/readyz")).status_code == 200
    told = [str(line["event"]) for line in command.log if line["level"] in {"error", "warning"}]
    assert told.count("no mail can be read; trying again until it can") == 1
    assert "mail can be read again" in command.events()

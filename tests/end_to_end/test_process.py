"""The real command as a process: signals, kill -9, a second start, wrong credentials, check, demo."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections import Counter
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from aiohttp import web

from ews_sync.simulator.faults import Latency, SoapFault
from ews_sync.simulator.life import Life
from ews_sync.simulator.mail import MailFactory, populate
from tests.end_to_end.world import PASSWORD

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.end_to_end.world import World

ADDRESS = "abc@example.com"
MAIL = b"Subject: one\r\nMessage-ID: <1@x>\r\n\r\nhello\r\n"
COMMAND = (sys.executable, "-c", "import sys; from ews_sync.cli import main; sys.exit(main())")


def environment(world: World, **keys: Any) -> dict[str, str]:
    path = world.directory.parent / "config.json"
    path.write_text(json.dumps(world.config(**keys)))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("REINFER")}
    return kept | {"REINFER_EWS_CONFIG": str(path)}


async def start(world: World, *arguments: str, variables: dict[str, str] | None = None) -> Process:
    given = ("--local-files-prefix", str(world.directory), "--bind", "127.0.0.1:0", *arguments)
    return await asyncio.create_subprocess_exec(
        *COMMAND,
        *given,
        env=environment(world) if variables is None else variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


def trap(imported: str, name: str) -> str:
    """Give a program that gets a signal while a module is being imported, wherever in the start that is."""
    return (
        "import os, signal, sys\n"
        "class Trap:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {imported!r}: os.kill(os.getpid(), signal.{name})\n"
        "sys.meta_path.insert(0, Trap())\n"
        "from ews_sync.cli import main\n"
        "sys.exit(main())"
    )


@asynccontextmanager
async def process(world: World, *arguments: str, **keys: Any) -> AsyncIterator[Process]:
    """Run the command; whatever happens, it is gone at the end."""
    running = await start(world, *arguments, variables=environment(world, **keys))
    output = asyncio.create_task(running.communicate())
    world.process = running
    try:
        yield running
    finally:
        world.process = None
        if running.returncode is None:
            running.kill()
        await output


@pytest.mark.parametrize("form", ["eml", "jsonl"])
async def test_kill_nine_again_and_again_loses_nothing(world: World, form: str) -> None:
    populate(world.mailbox(), 400, factory=MailFactory(11))
    life, chance = Life(world.exchange, seed=4), random.Random(4)
    world.server.faults.add(Latency(0.02), operation="GetItem")
    keys = {"reinfer_batch_size": 5, "emails_per_folder": 60, "poll_frequency": 0.1}
    fetched: Counter[str] = Counter()
    for _ in range(8):
        world.server.log.clear()
        goal = chance.randint(1, 12)
        async with process(world, "--local-files-format", form, **keys) as running:
            while len(world.server.log.of("GetItem")) < goal and not world.server.log.counts["FindFolder"] > 6:
                assert running.returncode is None, "it ended by itself"
                await asyncio.sleep(0.01)
            running.kill()
        life.step()
        fetched.update(item for record in world.server.log.of("GetItem") for item in record.item_ids)
    world.server.log.clear()
    async with process(world, "--local-files-format", form, **keys):
        if form == "eml":
            await world.until(lambda: not world.missing(), "all mail on disk")
        else:
            wanted = len(world.expected())
            await world.until(lambda: len({line["id"] for line in whole_lines(world)}) >= wanted, "all lines", 60)
    fetched.update(item for record in world.server.log.of("GetItem") for item in record.item_ids)
    everything = sum(fetched.values())
    assert everything < 2.5 * len(fetched), "a start must not fetch everything again"
    if form == "jsonl":
        # An email that was moved is there once for each of its folders; nothing is there twice for the same one.
        seen = Counter((line["id"], tuple(line["metadata"]["folder"])) for line in whole_lines(world))
        assert [key for key, count in seen.items() if count > 1] == []


def whole_lines(world: World) -> list[dict[str, Any]]:
    try:
        return world.lines()
    except json.JSONDecodeError:
        # One of them is being written.
        return []


async def test_sigterm_ends_it_in_an_orderly_way(world: World) -> None:
    populate(world.mailbox(), 300)
    world.server.faults.add(Latency(0.05), operation="GetItem")
    running = await start(world, variables=environment(world, reinfer_batch_size=5))
    await world.until(lambda: len(world.server.log.of("GetItem")) > 3, "fetching")
    running.send_signal(signal.SIGTERM)
    _, errors = await running.communicate()
    assert running.returncode == 0, errors.decode()
    lines = [json.loads(line) for line in errors.splitlines()]
    assert lines[-1]["event"] == "stopped"
    assert PASSWORD not in errors.decode()
    stored = len(world.stored())
    world.server.log.clear()
    async with process(world, reinfer_batch_size=5):
        await world.until(lambda: not world.missing(), "the rest")
    again = sum(record.item_count for record in world.server.log.of("GetItem"))
    assert stored + again <= len(list(world.mailbox().items())), "what was stored is not fetched again"


async def test_a_second_start_on_the_same_directory_is_refused_in_one_line(world: World) -> None:
    world.mailbox().folder("Inbox").deliver(b"Subject: one\r\nMessage-ID: <1@x>\r\n\r\nhello\r\n")
    async with process(world):
        await world.until(world.stored, "the first one's work")
        second = await start(world)
        _, errors = await second.communicate()
    assert second.returncode == 1
    last = errors.decode().splitlines()[-1]
    assert last.startswith("reinfer-ews: mailbox abc@example.com is already being synced")
    assert "Traceback" not in errors.decode()


async def test_refused_credentials_end_it_with_one_clear_line(world: World) -> None:
    world.mailbox()
    world.mailbox("xyz@example.com")
    variables = environment(world) | {"REINFER_EWS_AUTH_PASS": "wrong"}
    running = await start(world, variables=variables)
    _, errors = await running.communicate()
    assert running.returncode == 1
    assert "refused the user name or password" in errors.decode().splitlines()[-1]
    assert world.server.log.statuses[401] == 1, "a wrong password must be tried once: accounts get locked"


async def test_status_and_probes_answer(world: World) -> None:
    populate(world.mailbox(), 20)
    running = await start(world)
    assert running.stderr is not None
    address = ""
    while not address:
        line = json.loads(await running.stderr.readline())
        address = line.get("listening", "")
    async with httpx.AsyncClient(base_url=address, trust_env=False) as client:
        ready = None
        while ready != 200:
            ready = (await client.get("/readyz")).status_code
        assert (await client.get("/healthz")).status_code == 200
        status = (await client.get("/status")).json()
        text = (await client.get("/status", params={"format": "text"})).text
        assert (await client.get("/nothing")).status_code == 404
    assert [mailbox["mailbox"] for mailbox in status["mailboxes"]] == [ADDRESS]
    assert ADDRESS in text
    assert PASSWORD not in json.dumps(status) + text
    running.send_signal(signal.SIGTERM)
    await running.communicate()
    assert running.returncode == 0


class Log:
    """The lines that a process writes to its log, as they come."""

    def __init__(self, running: Process) -> None:
        assert running.stderr is not None
        self._stream = running.stderr
        self.text = ""

    async def until(self, event: str) -> dict[str, Any]:
        """Read up to the line of that event."""
        while line := await asyncio.wait_for(self._stream.readline(), 60):
            self.text += line.decode()
            fields: dict[str, Any] = json.loads(line)
            if fields["event"] == event:
                return fields
        raise AssertionError(f"it ended without {event!r}:\n{self.text}")

    async def rest(self) -> str:
        """Read to the end."""
        self.text += (await self._stream.read()).decode()
        return self.text


async def test_sighup_puts_another_config_in_force_and_an_invalid_one_leaves_the_old(world: World) -> None:
    world.mailbox().folder("Inbox").deliver(MAIL)
    variables = environment(world)
    running = await start(world, variables=variables)
    log = Log(running)
    address = (await log.until("started"))["listening"]
    async with httpx.AsyncClient(base_url=address, trust_env=False) as client:

        async def addresses() -> list[str]:
            status = (await client.get("/status")).json()
            return [mailbox["mailbox"] for mailbox in status["mailboxes"]]

        assert await addresses() == [ADDRESS]
        running.send_signal(signal.SIGHUP)
        await log.until("the config is unchanged: there is nothing to do")

        world.mailbox("new@example.com").folder("Inbox").deliver(MAIL)
        environment(world)
        running.send_signal(signal.SIGHUP)
        changed = await log.until("the config has changed: everything is built anew with it")
        assert changed["changes"] == ["mailboxes added: new@example.com"]
        await world.until(lambda: world.stored("new@example.com"), "the new mailbox's mail")
        assert sorted(await addresses()) == [ADDRESS, "new@example.com"]

        config = world.directory.parent / "config.json"
        config.write_text('{"host": "x", "poll_frequency": -1}')
        running.send_signal(signal.SIGHUP)
        wrong = await log.until("the config is wrong: the one before stays in force")
        assert len(wrong["problems"]) > 2
        status = (await client.get("/status")).json()
        assert "poll_frequency: must be a number" in status["config_failure"]["reason"]
        assert (await client.get("/readyz")).status_code == 200
        world.mailbox().folder("Inbox").deliver(MAIL.replace(b"<1@x>", b"<2@x>"))
        await world.until(lambda: len(world.stored()) == 2, "mail under the old config")

        environment(world, auth_password="another secret")
        running.send_signal(signal.SIGHUP)
        assert (await log.until("the config has changed: everything is built anew with it"))["changes"] == [
            "auth_password changed"
        ]
    # And the server refuses it, which ends the process, as it would have at its start.
    assert await running.wait() == 1
    text = await log.rest()
    assert "refused the user name or password" in text.splitlines()[-1]
    assert "another secret" not in text
    assert PASSWORD not in text


@pytest.mark.parametrize("imported", ["pydantic", "httpx", "ews_sync.engine.engine"])
async def test_sighup_during_the_start_is_no_end_and_not_forgotten(world: World, imported: str) -> None:
    world.mailbox()
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", trap(imported, "SIGHUP")),
        *("--local-files-prefix", str(world.directory), "--bind", "127.0.0.1:0"),
        env=environment(world),
        stderr=asyncio.subprocess.PIPE,
    )
    log = Log(running)
    await log.until("the config is unchanged: there is nothing to do")
    running.send_signal(signal.SIGTERM)
    assert await running.wait() == 0
    await log.rest()


# --- A config on the platform ----------------------------------------------------------------------------------------


@asynccontextmanager
async def platform(answer: web.Response) -> AsyncIterator[tuple[dict[str, str], list[str]]]:
    """Answer every request with the same; gives the variables that lead there, and the paths that were asked for."""
    asked: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=answer.status, body=answer.body, content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("REINFER")}
    yield (
        kept
        | {
            "REINFER_API_ENDPOINT": f"http://127.0.0.1:{runner.addresses[0][1]}/api/",
            "REINFER_API_TOKEN": "token-0123456789",
            "REINFER_EWS_BIND": "127.0.0.1:0",
            "REINFER_EWS_REMOTE_CONFIG_OWNER": "bank",
            "REINFER_EWS_REMOTE_CONFIG_KEY": "ews",
        },
        asked,
    )
    await runner.cleanup()


async def command(variables: dict[str, str], *arguments: str) -> Process:
    return await asyncio.create_subprocess_exec(
        *COMMAND, *arguments, env=variables, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )


async def test_while_the_platform_is_away_the_probes_say_so_and_sigterm_ends_it_in_order() -> None:
    async with platform(web.json_response({"status": "error", "message": "busy"}, status=503)) as (variables, asked):
        running = await command(variables)
        log = Log(running)
        address = (await log.until("fetching the config"))["listening"]
        await log.until("there is no config to begin with yet")
        async with httpx.AsyncClient(base_url=address, trust_env=False) as client:
            probed = await client.get("/readyz")
            assert (probed.status_code, probed.json()["checks"]["config_loaded"]) == (503, False)
            assert (await client.get("/healthz")).status_code == 200
            status = (await client.get("/status")).json()
        assert status["config_source"] == "remote config bank/ews"
        assert status["config_failure"]["reason"] in probed.json()["reasons"][0]
        running.send_signal(signal.SIGTERM)
        assert await running.wait() == 0
        assert "token-0123456789" not in await log.rest()
    assert set(asked) == {"/api/v1/appliance-configs/bank/ews"}


@pytest.mark.parametrize("arguments", [[], ["check"]])
@pytest.mark.parametrize(
    ("status", "body", "code", "says"),
    [
        (401, {"status": "error", "message": "no"}, 1, "REINFER_API_TOKEN"),
        (404, {"status": "error", "message": "no"}, 1, "--remote-config-owner"),
        (200, {"host": "x"}, 2, "mailboxes: missing: list the mailboxes to fetch (in remote config bank/ews)"),
        (200, {"status": "ok", "config": {"host": "x"}}, 2, "auth_type: missing"),
    ],
)
async def test_without_a_usable_config_on_the_platform_it_ends_and_says_what_to_do(
    arguments: list[str], status: int, body: dict[str, Any], code: int, says: str
) -> None:
    async with platform(web.json_response(body, status=status)) as (variables, asked):
        running = await command(variables, *arguments)
        _, errors = await running.communicate()
    assert running.returncode == code
    assert says in errors.decode()
    assert "Traceback" not in errors.decode()
    assert len(asked) == 1
    last = errors.decode().splitlines()[-1]
    assert last.startswith("reinfer-ews: " if code == 1 else "  ")


async def test_check_with_a_platform_that_is_away_does_not_wait() -> None:
    async with platform(web.json_response({"status": "error", "message": "busy"}, status=503)) as (variables, _):
        running = await command(variables, "check")
        _, errors = await asyncio.wait_for(running.communicate(), 30)
    assert running.returncode == 1
    assert len(errors.decode().splitlines()) == 1


async def test_check_says_what_is_fine_and_what_is_not(world: World) -> None:
    populate(world.mailbox(), 20)
    world.mailbox("xyz@example.com")
    running = await start(world, "check")
    output, _ = await running.communicate()
    assert running.returncode == 0
    assert "Inbox/Claims" in output.decode()
    assert "2 mailboxes, all fine" in output.decode()
    world.server.faults.add(SoapFault("ErrorNonExistentMailbox"), mailbox="xyz@example.com")
    running = await start(world, "check")
    output, errors = await running.communicate()
    assert running.returncode == 1
    assert "FAILED  xyz@example.com" in output.decode()
    assert "primary SMTP address" in output.decode()
    assert "2 mailboxes, 1 of them FAILED" in output.decode()
    assert errors == b""
    assert not (world.directory / "data").exists(), "check must change nothing"


async def test_shards_of_one_cluster_share_a_directory(world: World) -> None:
    for number in range(6):
        mailbox = world.mailbox(f"m{number}@example.com")
        mailbox.folder("Inbox").deliver(
            f"Subject: s\r\nMessage-ID: <{number}@x>\r\n\r\nhello\r\n".encode(),
            received=datetime.now(UTC) - timedelta(days=1),
        )
    addresses = list(world.exchange.mailboxes)
    async with (
        process(world, "--shard-name", "ews-0", "--total-shards", "2"),
        process(world, "--shard-name", "ews-1", "--total-shards", "2"),
    ):
        await world.until(lambda: all(world.stored(address) for address in addresses), "every mailbox, by either shard")


async def test_the_demo_runs_and_says_where_the_mail_is(tmp_path: Path) -> None:
    running = await asyncio.create_subprocess_exec(
        *COMMAND,
        *("demo", "--directory", str(tmp_path / "demo"), "--bind", "127.0.0.1:0", "--emails", "30", "--rate", "600"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    while len(list((tmp_path / "demo").rglob("*.eml"))) < 60:
        assert running.returncode is None
        await asyncio.sleep(0.05)
    second = await asyncio.create_subprocess_exec(
        *COMMAND,
        *("demo", "--directory", str(tmp_path / "demo"), "--bind", "127.0.0.1:0"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, refusal = await second.communicate()
    assert second.returncode == 2
    assert b"a demo is running in" in refusal
    assert len(list((tmp_path / "demo").rglob("*.eml"))) >= 60, "a second demo must not touch the first one's mail"
    running.send_signal(signal.SIGINT)
    output, errors = await running.communicate()
    assert running.returncode == 0, errors.decode()
    assert "http://127.0.0.1:" in output.decode()
    assert str(tmp_path / "demo" / "data") in output.decode().splitlines()[-2]
    assert errors == b""


async def test_the_demo_ends_when_nobody_watches_any_more(tmp_path: Path) -> None:
    demo = " ".join((*COMMAND[:1], "-c", f"'{COMMAND[2]}'", "demo", "--directory", str(tmp_path / "demo")))
    running = await asyncio.create_subprocess_shell(
        f"{{ {demo} --bind 127.0.0.1:0 --emails 5; echo $? >&2; }} | head -1",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await running.communicate()
    assert errors.decode().strip() == "0"


async def test_a_table_is_printed_whatever_the_terminal_can_show(world: World) -> None:
    world.mailbox().folder("\u00dcn\u00ef")
    running = await start(world, "check", variables=environment(world) | {"PYTHONIOENCODING": "ascii"})
    output, errors = await running.communicate()
    assert (running.returncode, errors) == (0, b"")
    assert b"\\xdcn\\xef" in output


@pytest.mark.parametrize("imported", ["pydantic", "httpx", "ews_sync.engine.engine"])
async def test_sigterm_before_anything_has_begun_ends_it(world: World, imported: str) -> None:
    world.mailbox()
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", trap(imported, "SIGTERM")),
        *("--local-files-prefix", str(world.directory), "--bind", "127.0.0.1:0"),
        env=environment(world),
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await running.communicate()
    assert (running.returncode, errors) == (0, b"")

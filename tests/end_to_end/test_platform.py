"""Exchange's mailboxes into the platform's buckets, with the real parts."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import httpx
import pytest

from ews_sync.simulator.faults import ConnectionReset, Latency
from ews_sync.simulator.mail import MailFactory, populate
from ews_sync.simulator.platform.faults import (
    CursorForgotten,
    CursorRefused,
    RefusedEmail,
    RequestTooLarge,
    api_error,
)
from ews_sync.sinks.platform.states import NO_CURSOR
from tests.end_to_end.platform_world import TOKEN, PlatformWorld, bare_environment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ADDRESS = "abc@example.com"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[PlatformWorld]:
    directory = tmp_path / "unused"
    with_both = PlatformWorld(directory)
    async with with_both.server, with_both.platform:
        yield with_both
    with_both.store.close()


def simple(number: int) -> bytes:
    head = f"From: a@x\r\nSubject: mail {number}\r\nMessage-ID: <{number}@sender.example>\r\n"
    return f"{head}\r\nbody of {number}\r\n".encode()


async def test_mail_flows_into_the_bucket_and_each_email_is_uploaded_once(world: PlatformWorld) -> None:
    populate(world.mailbox(), 300, factory=MailFactory(1))
    populate(world.mailbox("xyz@example.com"), 100, factory=MailFactory(2))
    async with world.running() as app:
        await world.until_stored(app)
        inbox = world.mailbox().folder("Inbox")
        new = inbox.deliver(simple(1))
        await world.until(lambda: not world.missing(), "the new mail")
        new.move(world.mailbox().folder("Archive"))
        await world.until(lambda: not world.missing(), "the moved mail")
        new_uploads = world.uploads()["<1@sender.example>"]
        await world.rounds(app, 2)
    assert new_uploads == 2, "a move uploads that one email again"
    uploads = world.uploads()
    assert {email_id for email_id, count in uploads.items() if count > 1} <= repeated_ids(world) | {
        "<1@sender.example>"
    }
    assert world.missing("xyz@example.com") == []


def repeated_ids(world: PlatformWorld) -> set[str]:
    """The ids that several items of the mailbox share: each of them is uploaded."""
    counts = Counter(item.properties.message_id for item in world.mailbox().items())
    return {str(email_id) for email_id, count in counts.items() if count > 1}


async def test_a_restart_uploads_nothing_again(world: PlatformWorld) -> None:
    populate(world.mailbox(), 200, factory=MailFactory(3))
    async with world.running() as app:
        await world.until_stored(app)
        await world.rounds(app, 1)
    before = world.uploads()
    states = world.states()
    assert {state["status"] for state in states} == {"UP_TO_DATE"}
    world.server.log.clear()
    async with world.running() as app:
        await world.rounds(app, 2)
        assert app.status.mailboxes[ADDRESS].stored == 0
        world.mailbox().folder("Inbox").deliver(simple(5))
        await world.until(lambda: not world.missing(), "new mail after the restart")
    assert world.uploads() == {**before, "<5@sender.example>": 1}
    assert len(world.server.log.of("GetItem")) == 1


@pytest.mark.parametrize("effect", [CursorRefused(), CursorForgotten()], ids=["refused", "forgotten"])
async def test_a_platform_without_cursors_gets_next_to_nothing_again(
    world: PlatformWorld, effect: CursorRefused | CursorForgotten
) -> None:
    world.platform.faults.add(effect)
    populate(world.mailbox(), 200, factory=MailFactory(4))
    async with world.running() as app:
        await world.until_stored(app)
        await world.rounds(app, 1)
    before = world.uploads()
    assert all("cursor" not in state for state in world.states())
    async with world.running() as app:
        world.mailbox().folder("Inbox").deliver(simple(6))
        await world.until(lambda: not world.missing(), "new mail after the restart")
        await world.rounds(app, 2)
        assert app.status.warnings.count(NO_CURSOR) == 1
    again = {email_id: count - before.get(email_id, 0) for email_id, count in world.uploads().items()}
    # What has no Message-ID cannot be asked about before it is fetched.
    assert sum(again.values()) <= 1 + 5, "next to nothing"


async def test_start_from_config_uploads_anew_and_overwrites_the_state(world: PlatformWorld) -> None:
    inbox = world.mailbox().folder("Inbox")
    for number in range(20):
        inbox.deliver(simple(number))
    async with world.running() as app:
        await world.until_stored(app)
    async with world.running(mailbox_keys={"start_from": "config"}) as app:
        await world.until_stored(app)
        await world.rounds(app, 1)
    assert set(world.uploads().values()) == {2}
    async with world.running() as app:
        await world.rounds(app, 1)
        assert app.status.mailboxes[ADDRESS].stored == 0


async def test_with_faults_and_a_small_limit_everything_arrives(world: PlatformWorld) -> None:
    faults = world.platform.faults
    faults.add(api_error(500), probability=0.05)
    faults.add(api_error(429, retry_after="0"), probability=0.03)
    faults.add(ConnectionReset(), probability=0.03)
    faults.add(RequestTooLarge(400_000))
    addresses = [ADDRESS, "xyz@example.com"]
    for number, address in enumerate(addresses):
        populate(world.mailbox(address), 250, factory=MailFactory(number))
    async with world.running() as app:
        await world.until(lambda: not any(world.missing(address) for address in addresses), "all mail in the bucket")
        faults.clear()
        await world.rounds(app, 1)
        assert not app.status.dead_letters
    async with world.running() as app:
        await world.rounds(app, 2)
        assert sum(mailbox.stored for mailbox in app.status.mailboxes.values()) == 0
    for address in addresses:
        assert world.missing(address) == []


async def test_a_refused_email_is_shown_and_kept_and_the_rest_goes_on(world: PlatformWorld, tmp_path: Path) -> None:
    inbox = world.mailbox().folder("Inbox")
    for number in range(30):
        inbox.deliver(simple(number))
    world.platform.faults.add(RefusedEmail(frozenset({"<7@sender.example>"}), message="not this one"))
    letters = tmp_path / "letters"
    async with world.running(arguments={"dead_letter_dir": str(letters)}) as app:
        await world.until(lambda: len(world.emails()) == 29, "the others")
        await world.rounds(app, 1)
        async with httpx.AsyncClient() as http:
            status = (await http.get(f"http://{app.server.address}/status?format=json")).json()
    [letter] = status["dead_letters"]
    assert letter["email_id"] == "<7@sender.example>"
    assert letter["mailbox"] == ADDRESS
    assert "not this one" in letter["reason"]
    assert status["mailboxes"][0]["dead_letters"] == 1
    assert status["mailboxes"][0]["stored"] == 29
    [line] = (letters / "bank" / "mail" / ADDRESS / "dead-letters.jsonl").read_text().splitlines()
    assert json.loads(line)["message_id"] == "<7@sender.example>"
    async with world.running() as app:
        await world.rounds(app, 2)
        assert not app.status.dead_letters, "it is passed by, and not tried with every start"


async def test_a_missing_bucket_is_its_mailboxes_trouble_alone(world: PlatformWorld) -> None:
    populate(world.mailbox(), 30)
    populate(world.mailbox("xyz@example.com"), 30)
    config = world.config()
    config["mailboxes"]["xyz@example.com"]["bucket"]["name"] = "typo"  # type: ignore[index]
    async with world.running(mailboxes=config["mailboxes"]) as app:
        await world.until(lambda: not world.missing(), "the other mailbox's mail")
        failed = app.status.mailboxes["xyz@example.com"]
        await world.until(lambda: failed.failure is not None, "the failure")
        assert failed.failure is not None
        assert "bank/typo" in failed.failure.reason
        assert failed.failure.needs_operator


async def test_three_shards_cover_nine_mailboxes_exactly_once(world: PlatformWorld) -> None:
    addresses = [f"team-{number}@example.com" for number in range(9)]
    for number, address in enumerate(addresses):
        populate(world.mailbox(address), 10, factory=MailFactory(number))
    kept: list[str] = []
    for number in range(3):
        arguments = {"shard_name": f"ews-{number}", "total_shards": "3"}
        async with world.running(arguments=arguments) as app:
            await world.until(lambda app=app: app.status.mailboxes, "the engine")  # type: ignore[misc]
            async with httpx.AsyncClient() as http:
                status = (await http.get(f"http://{app.server.address}/status?format=json")).json()
            own = [mailbox["mailbox"] for mailbox in status["mailboxes"]]
            assert status["shard"] == {
                "name": f"ews-{number}",
                "number": number,
                "total": 3,
                "mailboxes": len(own),
                "mailboxes_in_config": 9,
            }
            kept += own
            await world.until(lambda own=own: not any(map(world.missing, own)), "the shard's mail")  # type: ignore[misc]
    assert sorted(kept) == addresses
    assert not any(world.missing(address) for address in addresses)
    assert max(Counter(world.store.uploads("bank", "mail")).values()) == 1


# --- The real command ------------------------------------------------------------------------------------------------


def enough_is_known(world: PlatformWorld, goal: int) -> bool:
    return bool(world.states()) and len(world.emails()) >= goal


async def test_kill_nine_again_and_again_loses_nothing_and_repeats_little(world: PlatformWorld) -> None:
    populate(world.mailbox(), 600, factory=MailFactory(11))
    world.platform.faults.add(Latency(0.3), operation="put_emails")
    keys = {"reinfer_batch_size": 5, "poll_frequency": 0.1}
    for goal in (150, 250, 350):
        async with world.command(variables=world.environment(**keys)):
            done = partial(enough_is_known, world, goal)
            await world.until(done, "some mail, and a checkpoint")
    world.platform.faults.clear()
    async with world.command(variables=world.environment(**keys)):
        await world.until(lambda: not world.missing(), "all mail")
    async with world.command(variables=world.environment(**keys)) as last:
        await world.until(lambda: "caught up; following what changes" in last.events(), "the last start")
        last.process.send_signal(signal.SIGTERM)
        assert await last.process.wait() == 0
    repeats = sum(count - 1 for count in world.uploads().values())
    assert repeats <= 3, "what was uploaded since the last checkpoint is asked about, and not uploaded again"
    assert TOKEN not in last.text


async def test_a_refused_token_ends_the_process_with_one_clear_line(world: PlatformWorld) -> None:
    populate(world.mailbox(), 3)
    variables = world.environment() | {"REINFER_API_TOKEN": "a-wrong-token"}
    async with world.command(variables=variables) as command:
        assert await asyncio.wait_for(command.process.wait(), 30) == 1
    last = command.text.splitlines()[-1]
    assert "refuses the API token" in last
    assert "REINFER_API_TOKEN" in last
    assert "a-wrong-token" not in command.text


async def test_a_refused_token_with_restarts_keeps_the_probes_answering(world: PlatformWorld) -> None:
    populate(world.mailbox(), 3)
    world.platform.tokens.clear()
    async with world.command("--restart-on-unrecoverable-errors") as command:
        await world.until(lambda: "cannot go on; everything is built anew" in command.events(), "the restart")
        async with httpx.AsyncClient() as http:
            assert (await http.get(f"{command.address()}/healthz")).status_code == 200
            assert (await http.get(f"{command.address()}/readyz")).status_code == 503
        command.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(command.process.wait(), 30) == 0


async def test_a_remote_config_is_fetched_and_applied_when_it_changes(world: PlatformWorld) -> None:
    populate(world.mailbox(), 20)
    world.store.put_config("bank", "live", world.config())
    variables = bare_environment() | {"REINFER_API_TOKEN": TOKEN}
    arguments = ("--remote-config-owner", "bank", "--remote-config-key", "live")
    async with world.command(*arguments, variables=variables) as command:
        await world.until(lambda: not world.missing(), "the first mailbox")
        before = world.uploads()
        populate(world.mailbox("xyz@example.com"), 20)
        world.store.put_config("bank", "live", world.config(auth_user=7))
        command.process.send_signal(signal.SIGHUP)
        await world.until(lambda: any("auth_user" in str(line) for line in command.log), "the complaint")
        world.store.put_config("bank", "live", world.config())
        command.process.send_signal(signal.SIGHUP)
        await world.until(lambda: not world.missing("xyz@example.com"), "the new mailbox")
        async with httpx.AsyncClient() as http:
            status = (await http.get(f"{command.address()}/status?format=json")).json()
        assert "bank/live" in status["config_source"]
        assert len(status["mailboxes"]) == 2
        command.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(command.process.wait(), 30) == 0
    assert world.uploads() == before, "the internal restart uploads nothing again"

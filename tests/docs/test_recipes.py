"""What docs/operations.md tells an operator to do with local files does what it says."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from ews_sync.simulator.mail import MailFactory, populate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.end_to_end.world import World

ADDRESS = "abc@example.com"
NEW_MAIL = b"Message-ID: <new@sender.example>\r\nSubject: new\r\n\r\nbody\r\n"


async def fill(world: World, **keys: object) -> int:
    """Have some mail stored; gives how many emails there are."""
    populate(world.mailbox(), 40, factory=MailFactory(1))
    count = len(world.expected())
    async with world.running(**keys) as app:
        await world.until(lambda: bool(app.status.mailboxes), "the engine")
        await world.until(lambda: app.status.mailboxes[ADDRESS].stored >= count, "all mail stored")
        await world.rounds(app)
    return count


def arrive(world: World) -> None:
    world.mailbox().folder("Inbox").deliver(NEW_MAIL, received=datetime.now(UTC))


def of_the_mailbox(directory: Path, bucket: str) -> Iterator[Path]:
    """Give everything of the mailbox's state, as the handbook says."""
    return (directory / "state" / "bank" / bucket).glob(f"{ADDRESS}*")


@pytest.mark.parametrize("local_files_format", ["eml", "jsonl"])
async def test_a_mailbox_moves_to_another_bucket_with_its_mail(world: World, local_files_format: str) -> None:
    await fill(world, local_files_format=local_files_format)
    data = world.directory / "data" / "bank"
    (data / "other").mkdir()
    (data / "mail" / ADDRESS).rename(data / "other" / ADDRESS)
    (world.directory / "state" / "bank" / "other").mkdir()
    for path in list(of_the_mailbox(world.directory, "mail")):
        path.rename(world.directory / "state" / "bank" / "other" / path.name)
    arrive(world)
    keys = {"bucket": {"owner": "bank", "name": "other"}}
    async with world.running(local_files_format=local_files_format, mailbox_keys=keys) as app:
        await world.rounds(app, 3)
        assert app.status.mailboxes[ADDRESS].stored == 1, "only what is new"


@pytest.mark.parametrize("local_files_format", ["eml", "jsonl"])
async def test_an_older_state_repeats_and_nothing_is_missing_or_there_twice(
    world: World, tmp_path: Path, local_files_format: str
) -> None:
    count = await fill(world, local_files_format=local_files_format)
    shutil.copytree(world.directory / "state", tmp_path / "backup")
    arrive(world)
    async with world.running(local_files_format=local_files_format) as app:
        await world.rounds(app, 3)
    shutil.rmtree(world.directory / "state")
    shutil.copytree(tmp_path / "backup", world.directory / "state")
    async with world.running(local_files_format=local_files_format) as app:
        await world.rounds(app, 3)
    stored = [line["id"] for line in world.lines()] if local_files_format == "jsonl" else list(world.stored())
    assert len(stored) == len(set(stored)) == count + 1


async def test_a_newer_state_is_moved_away_and_what_was_lost_comes_back(world: World) -> None:
    await fill(world)
    lost = sorted((world.directory / "data" / "bank" / "mail" / ADDRESS).glob("*/*/*"))[:10]
    for path in lost:
        path.unlink()
    (world.directory / "state" / "bank" / "mail" / f"{ADDRESS}.json").rename(world.directory / "aside.json")
    async with world.running() as app:
        await world.until_stored(app)
    assert world.missing() == []


async def test_whole_files_of_lines_may_be_taken_away(world: World) -> None:
    await fill(world, local_files_format="jsonl")
    root = world.directory / "data" / "bank" / "mail" / ADDRESS
    (root / "emails-1.jsonl").unlink()
    arrive(world)
    async with world.running(local_files_format="jsonl") as app:
        await world.rounds(app, 3)
    assert [path.name for path in root.glob("*.jsonl")] == ["emails-2.jsonl"]
    assert [line["id"] for line in world.lines()] == ["<new@sender.example>"]

from __future__ import annotations

import asyncio
from dataclasses import asdict
from email import message_from_bytes, policy
from itertools import islice

import pytest

from ews_sync.simulator.life import Life, live
from ews_sync.simulator.mail import KINDS, Kind, MailFactory, populate
from ews_sync.simulator.properties import parse_properties
from ews_sync.simulator.store import Exchange
from tests.simulator.soap import START, Clock


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_number_gives_the_same_mail(kind: Kind) -> None:
    assert MailFactory(3).email(7, kind=kind).mime() == MailFactory(3).email(7, kind=kind).mime()
    assert MailFactory(3).email(7, kind=kind).mime() != MailFactory(4).email(7, kind=kind).mime()


def test_properties_are_what_the_message_says() -> None:
    factory = MailFactory(1)
    for n in range(300):
        mail = factory.email(n)
        told, said = asdict(mail.properties()), asdict(parse_properties(mail.mime()))
        told.pop("size"), said.pop("size")
        assert told == said, (n, mail.plan.kind)


def test_messages_are_well_formed() -> None:
    factory = MailFactory(2)
    for kind in KINDS:
        for n in range(5):
            mime = factory.email(n, kind=kind).mime()
            assert b"\n" not in mime.replace(b"\r\n", b"")
            assert not message_from_bytes(mime, policy=policy.compat32).defects


def test_conversations_run_through_the_mail() -> None:
    factory = MailFactory(1)
    known = {factory.email(n).properties().message_id for n in range(500)}
    answers = [factory.email(n).properties() for n in range(500)]
    answers = [answer for answer in answers if answer.in_reply_to]
    assert len(answers) > 50
    assert all(answer.in_reply_to in known for answer in answers)
    assert None in known


@pytest.mark.parametrize("size", [3_000, 100_000, 2_000_000])
def test_a_message_is_as_large_as_asked(size: int) -> None:
    assert len(MailFactory(0).email(1, size=size).mime()) == pytest.approx(size, rel=0.3, abs=1500)


def test_populate_fills_a_mailbox_the_same_way_each_time() -> None:
    def fill() -> list[tuple[str, str]]:
        mailbox = Exchange(Clock()).create_mailbox("a@example.com")
        populate(mailbox, 500)
        return [(item.folder.path, item.id) for folder in mailbox.folders() for item in folder.items()]

    first = fill()
    assert first == fill()
    assert len(first) == 500
    assert {path for path, _ in first} == {"Inbox", "Inbox/Claims", "Inbox/Quotes", "Archive", "Drafts"}


def test_populated_mail_lies_in_the_past() -> None:
    mailbox = Exchange(Clock()).create_mailbox("a@example.com")
    populate(mailbox, 50, months=2)
    times = [item.received for item in mailbox.items()]
    assert all(time is not None and time < START for time in times)


def test_a_life_is_the_same_each_time() -> None:
    def run() -> list[str]:
        exchange = Exchange(Clock())
        mailbox = exchange.create_mailbox("a@example.com")
        life = Life(exchange, seed=1)
        steps = [life.step() for _ in range(200)]
        assert sum(1 for _ in mailbox.items()) == 200
        return steps

    steps = run()
    assert steps == run()
    assert {"arrived", "arrived, read", "arrived, moved", "arrived, deleted", "arrived, folder"} <= set(steps)
    assert Life(Exchange()).step() == "nothing"


async def test_mail_arrives_at_a_rate() -> None:
    exchange = Exchange(Clock())
    mailbox = exchange.create_mailbox("a@example.com")
    waits: list[float] = []
    enough = asyncio.Event()

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 500:
            enough.set()
        await asyncio.sleep(0)

    task = asyncio.create_task(live(exchange, rate_per_minute=120, sleep=sleep))
    await enough.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sum(islice(waits, 500)) / 500 == pytest.approx(0.5, rel=0.2)
    assert sum(1 for _ in mailbox.items()) >= 499

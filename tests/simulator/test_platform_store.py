"""What the platform has stored stays, whole, through restarts and for many clients at a time."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, strategies as st

from ews_sync.simulator.platform.access import Token
from ews_sync.simulator.platform.server import PlatformServer
from ews_sync.simulator.platform.store import PlatformStore
from tests.simulator.platform_api import EMAILS, Api, new_email, plain_client, state

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


async def test_a_file_outlives_the_process(tmp_path: Path) -> None:
    path = tmp_path / "platform.sqlite"
    with PlatformStore(path) as store:
        bucket = store.create_bucket("owner", "name")
        store.put_config("project", "ews", {"mailboxes": {}})
        async with PlatformServer(store, [Token("secret")]) as server, plain_client() as client:
            await Api(server, client).put(new_email(1), new_email(2))
            await Api(server, client).put(new_email(1))
            await Api(server, client).put_state(state())
    assert _names(tmp_path) == ["platform.sqlite"]
    with PlatformStore(path) as store:
        assert store.create_bucket("owner", "name") == bucket
        assert store.buckets() == [bucket]
        assert store.emails("owner", "name") == [new_email(1), new_email(2)]
        assert store.uploads("owner", "name")["a@example.com", "<1@example.com>"] == 2
        assert store.keyed_sync_states("owner", "name") == [state()]
        assert store.config("project", "ews") == {"mailboxes": {}}


def _names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def test_what_was_answered_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "platform.sqlite"
    program = """
        import os, signal, sys
        from pathlib import Path
        from ews_sync.simulator.platform.store import PlatformStore
        store = PlatformStore(Path(sys.argv[1]))
        bucket = store.create_bucket("owner", "name")
        email = {"id": "1", "mailbox": "a", "timestamp": "2020-01-01T00:00:00Z", "mime_content": "x" * 100_000}
        store.put_emails(bucket, [{**email, "id": str(number)} for number in range(20)])
        os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(program), path], check=False)  # noqa: S603 - ourselves
    assert killed.returncode == -9
    with PlatformStore(path) as store:
        assert store.count("owner", "name") == 20


def test_what_was_not_answered_is_undone_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "platform.sqlite"
    program = """
        import os, signal, sys
        from pathlib import Path
        from ews_sync.simulator.platform.store import PlatformStore
        path = Path(sys.argv[1])
        store = PlatformStore(path)
        bucket = store.create_bucket("owner", "name")

        def put(letter):
            email = {"mailbox": "a", "timestamp": "2020-01-01T00:00:00Z", "mime_content": letter * 100_000}
            store.put_emails(bucket, [{**email, "id": str(number)} for number in range(100)])

        def kill():
            assert b"y" * 10_000 in path.read_bytes(), "nothing of it has got into the file"
            os.kill(os.getpid(), signal.SIGKILL)

        put("x")
        store._db.create_function("kill", 0, kill)
        condition = "AFTER UPDATE ON emails WHEN NEW.id = '98'"
        store._db.execute(f"CREATE TEMP TRIGGER near_the_end {condition} BEGIN SELECT kill(); END")
        put("y")
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(program), path], check=False)  # noqa: S603 - ourselves
    assert killed.returncode == -9
    with PlatformStore(path) as store:
        assert {email["mime_content"] for email in store.emails("owner", "name")} == {"x" * 100_000}
        assert set(store.uploads("owner", "name").values()) == {1}
    assert _names(tmp_path) == ["platform.sqlite"]


async def test_the_server_starts_again_on_its_port_with_what_it_had(api: Api) -> None:
    await api.put(new_email(1))
    before = api.server.url
    await api.server.stop()
    await api.server.start()
    assert api.server.url == before
    await api.put(new_email(2))
    assert api.store.count("owner", "name") == 2


async def test_many_clients_at_a_time(api: Api) -> None:
    requests = [api.put(*[new_email(100 * one + n, f"{one % 5}") for n in range(20)]) for one in range(40)]
    responses = await asyncio.gather(*requests)
    assert {response.status_code for response in responses} == {200}
    assert api.store.count("owner", "name") == 800
    assert [api.store.count("owner", "name", str(mailbox)) for mailbox in range(5)] == [160] * 5
    assert set(api.store.uploads("owner", "name").values()) == {1}
    assert len(api.server.log.of("put_emails")) == 40


async def test_a_page_is_whole_while_others_write(api: Api) -> None:
    await api.put(*[new_email(n) for n in range(100)])
    seen = []
    asked: dict[str, object] = {"limit": 7}
    for round_number in range(100, 200):
        page, _ = await asyncio.gather(api.call("POST", EMAILS, asked), api.put(new_email(round_number), new_email(5)))
        seen += [email["id"] for email in page.json()["emails"]]
        if "continuation" not in page.json():
            break
        asked["continuation"] = page.json()["continuation"]
    assert len(seen) == len(set(seen))
    assert seen[:100] == [new_email(n)["id"] for n in range(100)]


def test_a_put_is_stored_whole_or_not_at_all() -> None:
    with PlatformStore() as store:
        bucket = store.create_bucket("owner", "name")
        with pytest.raises(KeyError):
            store.put_emails(bucket, [new_email(1), {"id": "2"}])
        broken = {**new_email(2), "mailbox": None}  # gets as far as the database, whose rule it breaks
        with pytest.raises(Exception, match="NOT NULL"):
            store.put_emails(bucket, [new_email(1), broken])
        assert store.count("owner", "name") == 0
        store.put_emails(bucket, [new_email(1)])
        assert store.count("owner", "name") == 1


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_kept_as_it_was_sent(content: str) -> None:
    email = {**new_email(1), "mime_content": content}
    with PlatformStore() as store:
        bucket = store.create_bucket("owner", "name")
        store.put_emails(bucket, [new_email(1)])
        store.put_emails(bucket, [email])
        assert store.emails("owner", "name") == [email]
        assert [stored.email for stored in store.emails_by_id(bucket, email["id"])] == [email]


def test_a_bucket_that_is_not_there_is_said_to_be() -> None:
    with PlatformStore() as store:
        assert store.bucket("owner", "name") is None
        for asks in (store.emails, store.count, store.uploads, store.keyed_sync_states, store.delete_bucket):
            with pytest.raises(LookupError, match="owner/name"):
                asks("owner", "name")


def test_buckets_keep_apart_what_is_in_them() -> None:
    with PlatformStore() as store:
        one, two = store.create_bucket("owner", "one"), store.create_bucket("owner", "two", "A title")
        assert two.title == "A title"
        store.put_emails(one, [new_email(1)])
        store.put_emails(two, [new_email(1), new_email(2)])
        store.put_keyed_sync_state(one, "1", state())
        store.delete_bucket("owner", "two")
        assert store.emails("owner", "one") == [new_email(1)]
        assert store.keyed_sync_states("owner", "one") == [state()]
        assert store.buckets() == [one]


async def test_a_client_that_goes_away_in_the_middle_stores_nothing(api: Api) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", int(api.server.root.rpartition(":")[2]))
    writer.write(
        b"PUT /api/_private/buckets/owner/name/emails HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\n"
        b'Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"emails": ['
    )
    await writer.drain()
    writer.close()
    await api.server.log.until(lambda: len(api.server.log) == 1)
    assert api.server.log[0].status == 0
    assert api.store.count("owner", "name") == 0


async def test_a_request_of_30_mb_is_stored(api: Api) -> None:
    large = "x" * 30_000_000
    assert (await api.put(new_email(1, mime_content=large))).status_code == 200
    stored = api.store.email("owner", "name", "a@example.com", "<1@example.com>")
    assert stored is not None
    assert stored["mime_content"] == large


async def test_a_request_of_more_than_256_mib_is_not(api: Api) -> None:
    async def zeros() -> AsyncIterator[bytes]:
        for _ in range(257):
            yield bytes(1 << 20)

    response = await api.send("PUT", EMAILS, zeros())
    assert response.status_code == 413
    assert api.server.log[0].size == 257 << 20

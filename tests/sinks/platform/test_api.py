"""The calls as they stand on the wire, and answers that no platform should give."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pydantic import SecretStr

from ews_sync.model import Bucket
from ews_sync.sinks.platform.answers import PlatformError
from ews_sync.sinks.platform.api import PlatformApi, whole
from tests.sinks.platform.surroundings import HandClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

TOKEN = "s3cr3t-token-value"
OK = httpx.Response(200, json={"status": "ok"})


class Wire:
    """What was sent, and the answer to it."""

    def __init__(self, answer: httpx.Response | Exception = OK) -> None:
        self.answer = answer
        self.requests: list[httpx.Request] = []
        self.bodies: list[bytes] = []
        http = httpx.AsyncClient(transport=httpx.MockTransport(self._answer))
        self.api = PlatformApi("https://mydomain.example/api/", SecretStr(TOKEN), HandClock(), http=http)

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.bodies.append(await request.aread())
        if isinstance(self.answer, Exception):
            raise self.answer
        # As from a network: not read yet.
        return httpx.Response(self.answer.status_code, headers=self.answer.headers, content=_pieces(self.answer))


async def _pieces(response: httpx.Response) -> AsyncIterator[bytes]:
    for start in range(0, len(response.content), 65_536):
        yield response.content[start : start + 65_536]


@pytest.mark.parametrize(
    ("owner", "name", "expected"),
    [
        ("project", "bucket", b"project/bucket"),
        ("..", ".", b"%2E%2E/%2E"),
        ("a/b", "c?d#e", b"a%2Fb/c%3Fd%23e"),
        ("ä ö", "%2F", b"%C3%A4%20%C3%B6/%252F"),
    ],
)
async def test_names_stay_one_segment_of_a_path(owner: str, name: str, expected: bytes) -> None:
    wire = Wire(httpx.Response(200, json={"status": "ok", "bucket": {"id": "b1"}}))
    assert await wire.api.bucket_id(Bucket(owner, name)) == "b1"
    assert wire.requests[0].url.raw_path == b"/api/_private/buckets/" + expected


async def test_an_upload_has_its_length_its_type_and_the_token() -> None:
    wire = Wire()
    await wire.api.put_emails(Bucket("o", "n"), whole(b'{"emails":[]}'))
    [request] = wire.requests
    assert (request.method, request.url.path) == ("PUT", "/api/_private/buckets/o/n/emails")
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"
    assert request.headers["Content-Length"] == "13"
    assert "Transfer-Encoding" not in request.headers
    assert request.headers["Content-Type"] == "application/json"
    assert wire.bodies == [b'{"emails":[]}']


async def test_an_id_is_asked_for_as_it_is() -> None:
    stored = {"emails": [{"mailbox": "a@x", "metadata": {"folder": ["Inbox"]}}, {"mailbox": 7}, "?"], "status": "ok"}
    wire = Wire(httpx.Response(200, json=stored))
    found = await wire.api.emails_by_id(Bucket("o", "n"), "<a+b&c=d%@x>")
    assert wire.requests[0].url.params["id"] == "<a+b&c=d%@x>"
    assert [(email.mailbox, email.folder) for email in found] == [("a@x", ("Inbox",)), ("7", ())]


CALLS: dict[str, Callable[[PlatformApi], object]] = {
    "bucket": lambda api: api.bucket_id(Bucket("o", "n")),
    "upload": lambda api: api.put_emails(Bucket("o", "n"), whole(b"{}")),
    "emails": lambda api: api.emails_by_id(Bucket("o", "n"), "a"),
    "states": lambda api: api.keyed_sync_states("b1", lambda _: None),
    "state": lambda api: api.put_keyed_sync_state("b1", {"mailbox_name": "a", "folder_id": "f"}),
    "config": lambda api: api.appliance_config("o", "k"),
}
WRONG: dict[str, httpx.Response | Exception] = {
    "nothing": httpx.Response(200),
    "html": httpx.Response(200, html="<p>log in</p>"),
    "a list": httpx.Response(200, json=[]),
    "no status": httpx.Response(200, json={"status": None}),
    "an error that is fine": httpx.Response(200, json={"status": "error", "message": "x"}),
    "fine, but an error": httpx.Response(500, json={"status": "ok"}),
    "a redirect": httpx.Response(302, headers={"Location": "https://elsewhere.example/"}),
    "not found": httpx.Response(404, json={"status": "error", "message": "none"}),
    "a reset": httpx.ReadError("reset"),
    "a broken answer": httpx.RemoteProtocolError("peer closed connection"),
    "a time-out": httpx.ReadTimeout("slow"),
    "a closed client": RuntimeError("Cannot send a request, as the client has been closed."),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("wrong", WRONG)
async def test_whatever_comes_becomes_one_of_our_errors(call: str, wrong: str) -> None:
    wire = Wire(WRONG[wrong])
    with pytest.raises(PlatformError) as caught:
        await CALLS[call](wire.api)  # type: ignore[misc]
    assert TOKEN not in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("call", ["bucket", "states"])
async def test_a_good_answer_without_what_was_asked_for(call: str) -> None:
    with pytest.raises(PlatformError, match=r"no (bucket|sync states) in it"):
        await CALLS[call](Wire().api)  # type: ignore[misc]


async def test_an_answer_that_does_not_end_is_not_kept() -> None:
    wire = Wire(httpx.Response(200, content=b'{"status": "ok", "x": "' + b"x" * 3_000_000))
    with pytest.raises(PlatformError, match="does not end"):
        await wire.api.bucket_id(Bucket("o", "n"))


async def test_a_config_that_is_not_there_says_what_to_check() -> None:
    wire = Wire(httpx.Response(404, json={"status": "error", "message": "no such config"}))
    with pytest.raises(PlatformError) as caught:
        await wire.api.appliance_config("project", "live config")
    assert wire.requests[0].url.raw_path == b"/api/v1/appliance-configs/project/live%20config"
    assert "--remote-config-key" in caught.value.hint


async def test_messages_that_come_along_are_not_kept() -> None:
    email = {"mailbox": "a@x", "mime_content": "x\r\n" * 100_000, "metadata": {"folder": ["Inbox"]}}
    wire = Wire(
        httpx.Response(200, json={"status": "ok", "emails": [{**email, "mailbox": f"{n}@x"} for n in range(20)]})
    )
    tracemalloc.start()
    found = await wire.api.emails_by_id(Bucket("o", "n"), "a")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [email.mailbox for email in found] == [f"{number}@x" for number in range(20)]
    assert peak < 2_000_000


async def test_of_sync_states_one_is_in_memory_at_a_time() -> None:
    state = {"mailbox_name": "a@x", "folder_id": "f", "cursor": "x" * 20_000}
    wire = Wire(httpx.Response(200, json={"status": "ok", "keyed_sync_states": [state] * 500}))
    count = 0

    def take(found: Mapping[str, Any]) -> None:
        nonlocal count
        count += len(found["cursor"]) == 20_000

    tracemalloc.start()
    await wire.api.keyed_sync_states("b1", take)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 500
    assert peak < 1_000_000

"""What the platform refuses: everything that is not as the contract has it, and always the whole request."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from tests.simulator.platform_api import EMAILS, Api, message, new_email, state

REMOVED = object()


def _changed(value: dict[str, Any], path: str, new: Any) -> dict[str, Any]:
    changed: dict[str, Any] = json.loads(json.dumps(value))
    *way, last = path.split(".")
    inner: Any = changed
    for name in way:
        inner = inner[int(name)] if isinstance(inner, list) else inner[name]
    if new is REMOVED:
        del inner[last]
    else:
        inner[last] = new
    return changed


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("id", REMOVED, "emails[1].id: the field is missing"),
        ("id", "", "emails[1].id: a string that is not empty"),
        ("id", 7, "emails[1].id: a string that is not empty"),
        ("mailbox", REMOVED, "emails[1].mailbox: the field is missing"),
        ("mailbox", None, "emails[1].mailbox: a string that is not empty"),
        ("timestamp", REMOVED, "emails[1].timestamp: the field is missing"),
        ("timestamp", 1_577_836_800, "emails[1].timestamp: a time in UTC"),
        ("timestamp", "2020-01-01T00:00:00", "emails[1].timestamp: a time in UTC"),
        ("timestamp", "2020-01-01T00:00:00+01:00", "emails[1].timestamp: a time in UTC"),
        ("timestamp", "2020-01-01 00:00:00Z", "emails[1].timestamp: a time in UTC"),
        ("timestamp", "2020-01-01T00:00Z", "emails[1].timestamp: a time in UTC"),
        ("timestamp", "2020-02-30T00:00:00Z", "emails[1].timestamp: a time in UTC"),
        ("timestamp", "2020-01-01T00:00:00.1234567890Z", "emails[1].timestamp: a time in UTC"),
        ("timestamp", "\u0662020-01-01T00:00:00Z", "emails[1].timestamp: a time in UTC"),
        ("mime_content", REMOVED, "emails[1].mime_content: the field is missing"),
        ("mime_content", None, "emails[1].mime_content: a string"),
        ("mime_content", ["x"], "emails[1].mime_content: a string"),
        ("folder", ["Inbox"], "emails[1].folder: unknown field"),
        ("metadata", [], "emails[1].metadata: an object"),
        ("metadata", None, "emails[1].metadata: an object"),
        ("metadata.subject", "x", "emails[1].metadata.subject: unknown field"),
        ("metadata.size", True, "emails[1].metadata.size: a whole number"),
        ("metadata.size", -1, "emails[1].metadata.size: a whole number"),
        ("metadata.size", 1.0, "emails[1].metadata.size: a whole number"),
        ("metadata.size", "1", "emails[1].metadata.size: a whole number"),
        ("metadata.size", None, "emails[1].metadata.size: a whole number"),
        ("metadata.categories", "Red", "emails[1].metadata.categories: a list of strings"),
        ("metadata.categories", [1], "emails[1].metadata.categories: a list of strings"),
        ("metadata.folder", "Inbox/Claims", "emails[1].metadata.folder: a list of strings"),
        ("metadata.is_read", "false", "emails[1].metadata.is_read: true or false"),
        ("metadata.has_attachments", 1, "emails[1].metadata.has_attachments: true or false"),
        ("metadata.importance", None, "emails[1].metadata.importance: a string"),
        ("metadata.received_at", "2020-01-01", "emails[1].metadata.received_at: a time in UTC"),
        ("attachments", {}, "emails[1].attachments: a list"),
        ("attachments", None, "emails[1].attachments: a list"),
        ("attachments.0.name", REMOVED, "emails[1].attachments[0].name: the field is missing"),
        ("attachments.0.size", 1.5, "emails[1].attachments[0].size: a whole number"),
        ("attachments.0.content_type", REMOVED, "emails[1].attachments[0].content_type: the field is missing"),
        ("attachments.0.content", "eA==", "emails[1].attachments[0].content: unknown field"),
    ],
)
async def test_one_wrong_email_refuses_the_whole_request(api: Api, path: str, value: Any, says: str) -> None:
    response = await api.put(new_email(1), _changed(new_email(2), path, value), new_email(3))
    assert response.status_code == 400
    assert message(response).startswith(says)
    if path != "id":
        assert message(response).endswith('(id "<2@example.com>")')
    assert api.store.count("owner", "name") == 0
    assert api.server.log[0].message == message(response)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b'{"emails": []} x',
        b'{"emails": [],}',
        b'{"emails": {}}',
        b'{"emails": ["x"]}',
        b'{"emails": [], "more": 1}',
        b"{}",
        b'{"emails": [], "emails": []}',
        b'{"emails": [NaN]}',
        b'\xef\xbb\xbf{"emails": []}',
        b'{"emails": [' + b"[" * 100_000,
        b'{"emails": [' + b"9" * 10_000 + b"]}",
    ],
)
async def test_a_body_that_is_no_request_is_refused(api: Api, body: bytes) -> None:
    response = await api.send("PUT", EMAILS, body)
    assert response.status_code == 400
    assert message(response)


@pytest.mark.parametrize("depth", range(50, 1050, 50))
async def test_a_body_of_any_depth_is_refused_and_breaks_nothing(api: Api, depth: int) -> None:
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        response = await api.send(
            "PUT", EMAILS, b'{"emails": ' + opening * depth + b'"\\ud83d"' + closing * depth + b"}"
        )
        assert response.status_code == 400
        assert message(response)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b"number 1", b"\xff", "not valid UTF-8"),
        (b"number 1", b"\xed\xa0\x80", "not valid UTF-8"),
        (b"number 1", b"\xc3", "not valid UTF-8"),
        (b"number 1", b"a\x00b", "not valid JSON"),
        (b"number 1", b"a\nb", "not valid JSON"),
        (b"number 1", b"\\ud800", "emails[0].mime_content: a lone surrogate at character 9"),
        (b"number 1", b"\\udfff\\ud800", "emails[0].mime_content: a lone surrogate"),
        (b"Claims", b"\\uDBFF", "emails[0].metadata.folder[1]: a lone surrogate"),
        (b"sensitivity", b"\\ud83d", "a lone surrogate"),
        (b'"importance"', b'"sensitivity"', 'the key "sensitivity" stands twice'),
    ],
)
async def test_text_that_is_no_unicode_is_refused(api: Api, old: bytes, new: bytes, says: str) -> None:
    body = json.dumps({"emails": [new_email()]}, ensure_ascii=False).encode()
    assert old in body
    response = await api.send("PUT", EMAILS, body.replace(old, new, 1))
    assert response.status_code == 400
    assert says in message(response)
    assert api.store.count("owner", "name") == 0


async def test_text_beyond_the_basic_plane_is_accepted_in_both_spellings(api: Api) -> None:
    escaped = json.dumps({"emails": [new_email(1, mime_content="\U0001f600")]}, ensure_ascii=True).encode()
    assert b"\\ud83d\\ude00" in escaped
    assert (await api.send("PUT", EMAILS, escaped)).status_code == 200
    assert api.store.emails("owner", "name")[0]["mime_content"] == "\U0001f600"


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/jsonl", "multipart/form-data"])
async def test_json_must_say_that_it_is_json(api: Api, content_type: str) -> None:
    response = await api.send("PUT", EMAILS, b'{"emails": []}', content_type)
    assert response.status_code == 415
    assert "application/json" in message(response)
    assert (await api.send("PUT", EMAILS, b'{"emails": []}', "application/json; charset=utf-8")).status_code == 200


async def test_a_compressed_body_is_refused(api: Api) -> None:
    headers = {**api.headers, "Content-Type": "application/json", "Content-Encoding": "gzip"}
    body = gzip.compress(b'{"emails": []}')
    response = await api.client.put(f"{api.server.url}{EMAILS}", headers=headers, content=body)
    assert response.status_code == 415
    assert "Content-Encoding" in message(response)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("mailbox_name", REMOVED, "mailbox_name: the field is missing"),
        ("mailbox_name", "", "mailbox_name: a string that is not empty"),
        ("folder_id", None, "folder_id: a string that is not empty"),
        ("folder_path", "Inbox", "folder_path: a list of strings"),
        ("status", "DONE", "status: IN_PROGRESS or UP_TO_DATE is expected"),
        ("status", REMOVED, "status: the field is missing"),
        ("synced_until", "yesterday", "synced_until: a time in UTC"),
        ("last_synced_at", REMOVED, "last_synced_at: the field is missing"),
        ("last_synced_at", None, "last_synced_at: a time in UTC"),
        ("cursor", {"version": 1}, "cursor: a string"),
        ("version", 1, "version: unknown field"),
    ],
)
async def test_a_wrong_sync_state_is_refused(api: Api, path: str, value: Any, says: str) -> None:
    bucket = api.store.create_bucket("owner", "name")
    where = f"_private/buckets/id:{bucket.id}/keyed-sync-state/{'0' * 64}"
    response = await api.call("PUT", where, {"keyed_sync_state": _changed(state(), path, value)})
    assert response.status_code == 400
    assert message(response).startswith(f"keyed_sync_state.{says}")
    bare = await api.call("PUT", where, state())
    assert message(bare) == "mailbox_name: unknown field"
    assert api.store.keyed_sync_states("owner", "name") == []


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"limit": 0},
        {"limit": 257},
        {"limit": "10"},
        {"limit": True},
        {"limit": 1, "continuation": None},
        {"limit": 1, "continuation": "not one of ours"},
        {"limit": 1, "mailbox_name": "a"},
    ],
)
async def test_a_wrong_page_is_refused(api: Api, asked: dict[str, Any]) -> None:
    assert message(await api.call("POST", EMAILS, asked))


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"json": {"mailboxes": {}}}, 415),
        ({"files": {"config": b"{}"}}, 400),
        ({"files": {"file": b"[]"}}, 400),
        ({"files": {"file": b"{"}}, 400),
        ({"files": {"file": b'{"a": NaN}'}}, 400),
        ({"files": {"file": b""}}, 400),
        ({"files": {"file": b'{"a": "\xff"}'}}, 400),
        ({"files": [("file", b"{}"), ("file", b"{}")]}, 400),
        ({"files": {"file": b"{}"}, "data": {"more": "x"}}, 400),
        ({"headers": {"Content-Type": "multipart/form-data"}, "content": b"{}"}, 400),
    ],
)
async def test_a_wrong_config_is_refused(api: Api, form: dict[str, Any], status: int) -> None:
    headers = {**api.headers, **form.pop("headers", {})}
    url = f"{api.server.url}v1/appliance-configs/project/ews"
    response = await api.client.put(url, headers=headers, **form)
    assert response.status_code == status
    assert message(response)
    assert api.store.config("project", "ews") is None


@pytest.mark.parametrize(
    "wanted",
    [{}, {"bucket": {}}, {"bucket": {"bucket_type": "comments"}}, {"bucket": {"bucket_type": "emails", "x": 1}}],
)
async def test_a_wrong_bucket_is_refused(api: Api, wanted: dict[str, Any]) -> None:
    assert message(await api.call("PUT", "_private/buckets/owner/claims", wanted))
    assert api.store.bucket("owner", "claims") is None

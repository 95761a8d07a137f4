"""The platform's API, call by call."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import httpx
import pytest

from ews_sync.simulator.platform.access import Token
from ews_sync.simulator.platform.calls import Permission
from ews_sync.simulator.platform.server import PlatformServer
from ews_sync.simulator.platform.store import PlatformStore
from tests.simulator.platform_api import EMAILS, Api, message, new_email, plain_client, state, state_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


async def test_a_bucket_is_found_by_name_and_by_id(api: Api) -> None:
    bucket = api.store.create_bucket("owner", "name")
    by_name = await api.call("GET", "_private/buckets/owner/name")
    assert by_name.status_code == 200
    found = by_name.json()
    assert found["status"] == "ok"
    assert set(found["bucket"]) == {"id", "name", "owner", "created_at"}
    assert (found["bucket"]["owner"], found["bucket"]["name"]) == ("owner", "name")
    assert found["bucket"]["created_at"].endswith("Z")
    for same in ("_private/buckets/owner%2Fname", f"_private/buckets/id:{bucket.id}"):
        assert (await api.call("GET", same)).json() == found
    assert message(await api.call("GET", "_private/buckets/owner/other")) == "there is no bucket owner/other"
    assert (await api.call("GET", "_private/buckets/id:0123")).status_code == 404


async def test_buckets_are_made_listed_and_deleted(api: Api) -> None:
    wanted = {"bucket": {"bucket_type": "emails", "title": "Claims"}}
    made = await api.call("PUT", "_private/buckets/owner/claims", wanted)
    assert made.json()["bucket"]["name"] == "claims"
    assert (await api.call("PUT", "_private/buckets/owner/claims", wanted)).status_code == 409
    listed = (await api.call("GET", "_private/buckets")).json()["buckets"]
    assert [bucket["name"] for bucket in listed] == ["claims", "name"]
    await api.put(new_email(), path="_private/buckets/owner/claims/emails")
    assert (await api.call("DELETE", f"_private/buckets/id:{made.json()['bucket']['id']}")).json() == {"status": "ok"}
    assert (await api.call("GET", "_private/buckets/owner/claims")).status_code == 404
    again = api.store.create_bucket("owner", "claims")
    assert again.id != made.json()["bucket"]["id"]
    assert api.store.count("owner", "claims") == 0


async def test_emails_are_stored_as_they_were_sent(api: Api) -> None:
    large = new_email(2, mime_content="Subject: \U0001f600\x00\u2028\r\n\r\n" + "x" * 1_000_000)
    bare = {
        "id": "<3@example.com>",
        "mailbox": "b@example.com",
        "timestamp": "2020-01-01T00:00:00Z",
        "mime_content": "",
    }
    response = await api.put(new_email(1), large, bare)
    assert (response.status_code, response.json()) == (200, {"status": "ok"})
    assert api.store.emails("owner", "name") == [new_email(1), large, bare]
    assert api.store.emails("owner", "name", "b@example.com") == [bare]
    assert api.store.email("owner", "name", "a@example.com", "<2@example.com>") == large
    assert api.store.email("owner", "name", "b@example.com", "<2@example.com>") is None
    (record,) = api.server.log.of("put_emails")
    assert (record.bucket, record.status) == ("owner/name", 200)
    assert record.mailboxes == ("a@example.com", "b@example.com")
    assert record.email_ids == ("<1@example.com>", "<2@example.com>", "<3@example.com>")
    assert record.size == len(response.request.content)


async def test_mailbox_and_id_are_the_key(api: Api) -> None:
    await api.put(new_email(1), new_email(2), new_email(1, "b@example.com"))
    moved = new_email(1, metadata={"folder": ["Archive"]})
    await api.put(new_email(1, mime_content="earlier in the same request"), moved)
    assert api.store.emails("owner", "name") == [moved, new_email(2), new_email(1, "b@example.com")]
    assert api.store.count("owner", "name") == 3
    assert api.store.count("owner", "name", "a@example.com") == 2
    assert api.store.uploads("owner", "name") == {
        ("a@example.com", "<1@example.com>"): 3,
        ("a@example.com", "<2@example.com>"): 1,
        ("b@example.com", "<1@example.com>"): 1,
    }


async def test_no_emails_are_no_error(api: Api) -> None:
    assert (await api.put()).json() == {"status": "ok"}
    assert (await api.put(path=f"{EMAILS}?no_charge=false")).status_code == 200


async def test_a_body_may_come_in_chunks(api: Api) -> None:
    body = json.dumps({"emails": [new_email(n) for n in range(50)]}).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    response = await api.send("PUT", EMAILS, pieces())
    assert response.request.headers["Transfer-Encoding"] == "chunked"
    assert response.status_code == 200
    assert api.store.count("owner", "name") == 50
    assert api.server.log[0].size == len(body)


async def test_emails_are_read_back_a_page_at_a_time(api: Api) -> None:
    sent = [new_email(n) for n in range(30)]
    await api.put(*sent)
    found: list[dict[str, object]] = []
    asked: dict[str, object] = {"limit": 10}
    sizes = []
    while True:
        page = (await api.call("POST", EMAILS, asked)).json()
        sizes.append(len(page["emails"]))
        found += page["emails"]
        if "continuation" not in page:
            break
        asked["continuation"] = page["continuation"]
        # What is replaced between two pages keeps its place: it comes neither twice nor not at all.
        await api.put(new_email(3), new_email(24))
    assert sizes == [10, 10, 10]
    assert all(isinstance(email.pop("created_at"), str) for email in found)
    assert all(isinstance(email.pop("updated_at"), str) for email in found)
    assert found == sent


async def test_emails_are_found_by_mailbox_and_time(api: Api) -> None:
    await api.put(*[new_email(n, "ab"[n % 2]) for n in range(20)])
    asked = {
        "limit": 4,
        "mailbox_name": "a",
        "from_timestamp": "2020-01-01T00:00:04Z",
        "to_timestamp": "2020-01-01T00:00:14.000000000+00:00",
    }
    first = (await api.call("POST", f"{EMAILS}/query", asked)).json()
    assert [email["id"] for email in first["emails"]] == [f"<{n}@example.com>" for n in (4, 6, 8, 10)]
    assert first["more_results"] is True
    rest = (await api.call("POST", f"{EMAILS}/query", {**asked, "continuation": first["continuation"]})).json()
    assert [email["id"] for email in rest["emails"]] == ["<12@example.com>"]
    assert rest["more_results"] is False


async def test_times_are_compared_to_the_nanosecond(api: Api) -> None:
    times = ["2020-01-01T00:00:00.3Z", "2020-01-01T00:00:00.05Z", "2020-01-01T00:00:00.300000001Z"]
    await api.put(*[new_email(number, timestamp=time) for number, time in enumerate(times)])
    found = await api.call(
        "POST", f"{EMAILS}/query", {"limit": 9, "from_timestamp": times[0], "to_timestamp": times[2]}
    )
    assert [email["timestamp"] for email in found.json()["emails"]] == [times[0]]


async def test_emails_are_found_and_deleted_by_id(api: Api) -> None:
    await api.put(new_email(1, "a"), new_email(1, "b", attachments=[]), new_email(2, "a"))
    found = (await api.call("GET", EMAILS, params={"id": "<1@example.com>"})).json()["emails"]
    assert [(email["mailbox"], email["id"]) for email in found] == [("a", "<1@example.com>"), ("b", "<1@example.com>")]
    assert (await api.call("GET", EMAILS, params={"id": "<9@example.com>"})).json()["emails"] == []
    assert (await api.call("GET", "_private/buckets/owner/name/statistics")).json()["statistics"] == {
        "count": {"kind": "exact", "value": 3}
    }
    deleted = await api.call("DELETE", EMAILS, params={"id": ["<1@example.com>", "<9@example.com>"]})
    assert deleted.json() == {"status": "ok"}
    assert api.store.emails("owner", "name") == [new_email(2, "a")]


async def test_keyed_sync_states_are_written_read_and_deleted(api: Api) -> None:
    one, two, other = state(), state(folder="AAMl", status="UP_TO_DATE"), state("b@example.com", synced_until=None)
    for keyed in (one, two, other):
        response = await api.put_state(keyed)
        assert (response.status_code, response.json()) == (200, {"status": "ok"})
    bucket = f"_private/buckets/id:{api.store.create_bucket('owner', 'name').id}"
    read = (await api.call("GET", f"{bucket}/keyed-sync-states/")).json()
    assert read["status"] == "ok"
    assert sorted(read["keyed_sync_states"], key=state_id) == sorted([one, two, other], key=state_id)

    later = state(synced_until="2021-01-01T00:00:00Z")
    await api.put_state(later)
    assert sorted(api.store.keyed_sync_states("owner", "name", "a@example.com"), key=state_id) == sorted(
        [later, two], key=state_id
    )
    ids = await api.call("POST", f"{bucket}/keyed-sync-state-ids", {"mailbox_name": "a@example.com"})
    assert ids.json() == {"status": "ok", "keyed_sync_state_ids": sorted([state_id(one), state_id(two)])}
    gone = f"{bucket}/keyed-sync-state/{state_id(two)}"
    assert (await api.call("DELETE", gone)).json() == {"status": "ok"}
    assert (await api.call("DELETE", gone)).status_code == 404
    assert api.store.keyed_sync_states("owner", "name", "a@example.com") == [later]

    api.store.forget_cursors("owner", "name")
    assert all("cursor" not in keyed for keyed in api.store.keyed_sync_states("owner", "name"))
    api.store.delete_keyed_sync_states("owner", "name", "b@example.com")
    assert len(api.store.keyed_sync_states("owner", "name")) == 1
    records = api.server.log.of("put_keyed_sync_state")
    assert [record.mailboxes for record in records] == [(keyed["mailbox_name"],) for keyed in (one, two, other, later)]
    assert {record.bucket for record in records} == {"owner/name"}


async def test_a_state_belongs_to_its_mailbox_and_folder(api: Api) -> None:
    bucket = api.store.create_bucket("owner", "name")
    path = f"_private/buckets/id:{bucket.id}/keyed-sync-state/{state_id(state(folder='other'))}"
    refused = await api.call("PUT", path, {"keyed_sync_state": state()})
    assert refused.status_code == 400
    assert "SHA-256" in message(refused)
    assert api.store.keyed_sync_states("owner", "name") == []


async def test_a_config_is_uploaded_as_a_form_and_read(api: Api) -> None:
    path = "v1/appliance-configs/project/ews"
    config = {"mailboxes": {"a@example.com": {"bucket": {"owner": "o", "name": "é"}}}, "audit_email": "a@example.com"}
    assert (await api.call("GET", path)).status_code == 404
    file = ("config.json", json.dumps(config, ensure_ascii=False, indent=1).encode(), "application/json")
    assert (await api.call("PUT", path, files={"file": file})).json() == {"status": "ok"}
    assert (await api.call("GET", path)).json() == {"status": "ok", "config": config}
    assert api.store.config("project", "ews") == config
    assert [record.operation for record in api.server.log] == ["get_config", "put_config", "get_config"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="the documented command needs curl")
async def test_the_documented_command_uploads_a_config(api: Api, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"mailboxes": {}}')
    command = (
        f"curl -sS --noproxy '*' -H 'Authorization: Bearer secret' -H 'Content-Type: multipart/form-data' "
        f"-F 'file=@{tmp_path}/config.json' -XPUT {api.server.url}v1/appliance-configs/project/ews"
    )
    curl = await asyncio.create_subprocess_shell(command, stdout=asyncio.subprocess.PIPE)
    output, _ = await curl.communicate()
    assert (curl.returncode, json.loads(output)) == (0, {"status": "ok"})
    assert api.store.config("project", "ews") == {"mailboxes": {}}


async def test_a_config_can_be_answered_bare(api: Api) -> None:
    api.store.put_config("project", "ews", {"mailboxes": {}})
    async with PlatformServer(api.store, [Token("secret")], bare_config=True) as server:
        bare = Api(server, api.client)
        assert (await bare.call("GET", "v1/appliance-configs/project/ews")).json() == {"mailboxes": {}}
        assert message(await bare.call("GET", "v1/appliance-configs/project/other"))
    api.store.delete_config("project", "ews")
    assert (await api.call("GET", "v1/appliance-configs/project/ews")).status_code == 404


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer wrong", "Basic secret", "secret", "Bearer secret2"])
async def test_strangers_are_refused(api: Api, authorization: str) -> None:
    api.headers = {"Authorization": authorization} if authorization else {}
    response = await api.put(new_email())
    assert response.status_code == 401
    assert "token" in message(response)
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert api.store.count("owner", "name") == 0
    assert api.server.log.statuses == {401: 1}


async def test_a_token_allows_what_it_allows(api: Api) -> None:
    api.server.tokens += [
        Token("reader", {Permission.BUCKETS_READ}),
        Token("blind", hidden={"owner/name"}),
        Token("nobody", ()),
    ]
    reader, blind, nobody = (api.with_token(name) for name in ("reader", "blind", "nobody"))
    refused = await reader.put(new_email())
    assert refused.status_code == 403
    assert message(refused) == "the token lacks the permission buckets-append"
    assert (await reader.put_state(state())).status_code == 403
    assert (await reader.call("GET", "_private/buckets/owner/name")).status_code == 200
    assert (await reader.call("GET", "v1/appliance-configs/project/ews")).status_code == 403
    for unseeing in (blind, nobody):
        assert (await unseeing.put(new_email())).status_code == 404
        assert (await unseeing.call("GET", "_private/buckets/owner/name")).status_code == 404
        assert (await unseeing.call("GET", "_private/buckets")).json()["buckets"] == []
    assert api.store.count("owner", "name") == 0
    api.server.tokens.clear()
    assert (await reader.call("GET", "_private/buckets/owner/name")).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "", 404),
        ("GET", "/_private/buckets", 404),
        ("GET", "_private/buckets/", 404),
        ("GET", "_private/buckets/owner", 404),
        ("PUT", "_private/buckets/owner/na me/emails", 404),
        ("GET", "_private/buckets/owner/name/keyed-sync-states/", 404),
        ("PATCH", EMAILS, 405),
        ("POST", "v1/appliance-configs/project/ews", 405),
        ("GET", EMAILS, 400),
        ("GET", f"{EMAILS}?id=1&id=2", 400),
        ("GET", f"{EMAILS}?id=1&limit=2", 400),
        ("DELETE", EMAILS, 400),
        ("DELETE", f"{EMAILS}?{'&'.join(['id=1'] * 33)}", 400),
        ("PUT", f"{EMAILS}?no_charge=perhaps", 400),
        ("POST", f"{EMAILS}?limit=2", 400),
    ],
)
async def test_what_does_not_exist_is_an_error(api: Api, method: str, path: str, status: int) -> None:
    response = await api.call(method, path)
    assert response.status_code == status
    assert message(response)


async def test_the_time_is_the_stores() -> None:
    at = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
    with PlatformStore(clock=lambda: at) as store:
        store.create_bucket("owner", "name")
        async with PlatformServer(store, [Token("secret")]) as server, plain_client() as client:
            api = Api(server, client)
            await api.put(new_email())
            (email,) = (await api.call("POST", EMAILS, {"limit": 1})).json()["emails"]
    assert (email["created_at"], email["updated_at"]) == ("2026-05-04T03:02:01Z", "2026-05-04T03:02:01Z")
    assert server.log[0].started == at


async def test_with_a_certificate_it_speaks_tls(api: Api, tmp_path: Path) -> None:
    command = (
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
        f" -addext subjectAltName=IP:127.0.0.1 -keyout {tmp_path}/key.pem -out {tmp_path}/cert.pem"
    )
    try:
        subprocess.run(command.split(), check=True, capture_output=True)  # noqa: ASYNC221, S603 - our own words, once
    except FileNotFoundError:
        pytest.skip("there is no openssl to make a certificate with")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    trusting = ssl.create_default_context(cafile=tmp_path / "cert.pem")
    async with (
        PlatformServer(api.store, [Token("secret")], ssl_context=context) as server,
        httpx.AsyncClient(trust_env=False, verify=trusting) as client,
    ):
        assert server.url.startswith("https://127.0.0.1:")
        assert (await Api(server, client).put(new_email())).status_code == 200

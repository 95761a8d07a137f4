"""A client of the stand-in platform that says exactly what it is told to."""

from __future__ import annotations

import hashlib
import json
import ssl
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ews_sync.simulator.platform.server import PlatformServer

EMAILS = "_private/buckets/owner/name/emails"


def new_email(number: int = 1, mailbox: str = "a@example.com", **changes: Any) -> dict[str, Any]:
    return {
        "id": f"<{number}@example.com>",
        "mailbox": mailbox,
        "timestamp": f"2020-01-01T00:00:{number % 60:02}Z",
        "mime_content": f"Subject: number {number} - é\r\n\r\nHello",
        "metadata": {
            "sensitivity": "Normal",
            "size": 24_576,
            "categories": ["Red"],
            "importance": "Normal",
            "has_attachments": True,
            "conversation_id": "AAQ",
            "conversation_topic": "number",
            "is_read": False,
            "folder": ["Inbox", "Claims"],
            "received_at": "2020-01-01T00:00:02.5Z",
        },
        "attachments": [{"name": "a.pdf", "size": 12_345, "content_type": "application/pdf"}],
        **changes,
    }


def state(mailbox: str = "a@example.com", folder: str = "AAMk", **changes: Any) -> dict[str, Any]:
    return {
        "mailbox_name": mailbox,
        "folder_id": folder,
        "folder_path": ["Inbox", "Claims"],
        "status": "IN_PROGRESS",
        "synced_until": "2020-01-01T00:00:00Z",
        "last_synced_at": "2020-01-01T00:00:05.123456Z",
        "cursor": '{"version":1}',
        **changes,
    }


def state_id(keyed: Mapping[str, Any]) -> str:
    return hashlib.sha256(f"{keyed['mailbox_name']}\n{keyed['folder_id']}".encode()).hexdigest()


def plain_client() -> httpx.AsyncClient:
    """A client for http:// only: reading the world's certificates would take longer than most tests."""
    return httpx.AsyncClient(trust_env=False, verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


class Api:
    """Calls the server with a token. `client` has no retries and no redirects."""

    def __init__(self, server: PlatformServer, client: httpx.AsyncClient, token: str = "secret") -> None:  # noqa: S107 - of a test
        self.server = server
        self.store = server.store
        self.client = client
        self.headers = {"Authorization": f"Bearer {token}"}

    def with_token(self, token: str) -> Api:
        return Api(self.server, self.client, token)

    async def call(self, method: str, path: str, value: Any = None, **more: Any) -> httpx.Response:
        json_body = {} if value is None else {"json": value}
        return await self.client.request(method, f"{self.server.url}{path}", headers=self.headers, **json_body, **more)

    async def send(
        self, method: str, path: str, content: Any, content_type: str = "application/json"
    ) -> httpx.Response:
        headers = {**self.headers, "Content-Type": content_type}
        return await self.client.request(method, f"{self.server.url}{path}", headers=headers, content=content)

    async def put(self, *emails: Mapping[str, Any], path: str = EMAILS) -> httpx.Response:
        return await self.call("PUT", path, {"emails": list(emails)})

    async def put_state(self, keyed: Mapping[str, Any]) -> httpx.Response:
        bucket = self.store.create_bucket("owner", "name")
        path = f"_private/buckets/id:{bucket.id}/keyed-sync-state/{state_id(keyed)}"
        return await self.call("PUT", path, {"keyed_sync_state": dict(keyed)})


def message(response: httpx.Response) -> str:
    """Check that a response is the API's error, and return what it says."""
    body = json.loads(response.content)
    assert response.status_code >= 400
    assert response.headers["Content-Type"] == "application/json"
    assert body["status"] == "error"
    assert set(body) == {"status", "message"}
    return str(body["message"])

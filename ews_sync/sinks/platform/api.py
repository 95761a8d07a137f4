"""The platform's HTTP interface, as far as the appliance uses it: one method for each call, and nothing else.

The calls are those of the platform's published documentation and of its published command line client, but for
`put_keyed_sync_state`: the platform's own appliance must have such a call, its form is not published, and this is the
form that was chosen. It stands here, in `_state_path`, and nowhere else.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

from ews_sync import __version__
from ews_sync.errors import Scope
from ews_sync.settings.config_file import LARGEST
from ews_sync.sinks.platform.answers import (
    NotFoundError,
    PlatformError,
    connection_error,
    read_answer,
    read_config,
)
from ews_sync.sinks.platform.json_stream import ElementReader
from ews_sync.web.certificates import presented_certificate
from ews_sync.web.tls import context_for
from ews_sync.web.transport import new_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from pydantic import SecretStr

    from ews_sync.model import Bucket, Clock

CONNECTIONS = 36
"""As many as there can be upload workers, and some for checkpoints."""
_SMALL = 1024 * 1024
_LONGEST_NAME = 64 * 1024
_LARGEST_STATE = 8 * 1024 * 1024
_DEADLINE = 1800.0


@dataclass(frozen=True, slots=True)
class Upload:
    """A request's body: its length in bytes, and its pieces."""

    size: int
    pieces: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class StoredEmail:
    """What the platform says about an email that it holds: whose it is, and in which folder it was."""

    mailbox: str
    folder: tuple[str, ...]


class PlatformApi:
    """Calls one platform with one token. Raises `PlatformError` and its children only; nothing is tried twice.

    `endpoint` ends with "/". `answer_within` is the longest silence in seconds. `http` replaces the client that would
    be made, whose connections honour HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE and SSL_CERT_DIR.
    """

    def __init__(
        self,
        endpoint: str,
        token: SecretStr,
        clock: Clock,
        *,
        answer_within: float = 120.0,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self._endpoint = str(httpx.URL(endpoint))
        self._token = token
        self._clock = clock
        # Time enough for a piece of an upload on a line of 20 kbit/s.
        self._timeout = httpx.Timeout(connect=15, read=answer_within, write=120, pool=None)
        # One connection for all of a quiet appliance is kept between rounds.
        limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=16, keepalive_expiry=60)
        self._http = http or new_client(context_for(self._endpoint), limits)

    async def bucket_id(self, bucket: Bucket) -> str:
        """Give a bucket's id. `NotFoundError` when there is none, or the token may not see it."""
        doing = f"looking for bucket {bucket}"
        try:
            answer = await self._call(doing, "GET", _bucket_path(bucket))
        except NotFoundError as error:
            raise _no_bucket(bucket, error) from error
        found = answer.get("bucket")
        if not isinstance(found, dict) or not isinstance(found.get("id"), str):
            raise PlatformError(f"{doing}: the platform's answer has no bucket in it", scope=Scope.PROCESS)
        return str(found["id"])

    async def put_emails(self, bucket: Bucket, upload: Upload) -> None:
        """Store the emails of a body `{"emails": [NewEmail, …]}`, all of them or none, replacing those of the same key.

        `RefusedError` when one of them, or their size, is not accepted.
        """
        path = f"{_bucket_path(bucket)}/emails"
        try:
            await self._call(f"uploading to bucket {bucket}", "PUT", path, upload=upload)
        except NotFoundError as error:
            raise _no_bucket(bucket, error) from error

    async def emails_by_id(self, bucket: Bucket, email_id: str) -> list[StoredEmail]:
        """Give what is stored under an id, at most one email for each mailbox.

        The platform sends the messages along, so the answer can be large; of them nothing is kept.
        """
        doing = f"looking for an email in bucket {bucket}"
        path = f"{_bucket_path(bucket)}/emails"
        found: list[StoredEmail] = []
        reader = ElementReader(largest=_SMALL, longest_string=_LONGEST_NAME)
        try:
            await self._read_elements(doing, path, reader, lambda email: found.append(_stored(email)), {"id": email_id})
        except NotFoundError as error:
            raise _no_bucket(bucket, error) from error
        return found

    async def keyed_sync_states(self, bucket_id: str, take: Callable[[Mapping[str, Any]], object]) -> None:
        """Give `take` the KeyedSyncStates of all folders of all mailboxes of a bucket, one by one, as they come."""
        doing = "reading the sync states"
        path = f"_private/buckets/id:{_name(bucket_id)}/keyed-sync-states/"
        reader = ElementReader(largest=_LARGEST_STATE)
        answer = await self._read_elements(doing, path, reader, take)
        if not isinstance(answer.get("keyed_sync_states"), list):
            raise PlatformError(f"{doing}: the platform's answer has no sync states in it", scope=Scope.PROCESS)

    async def put_keyed_sync_state(self, bucket_id: str, state: Mapping[str, object]) -> None:
        """Replace the state of one folder of one mailbox. `RefusedError` when it is not accepted."""
        body = json.dumps({"keyed_sync_state": state}, ensure_ascii=False).encode("utf-8", "replace")
        await self._call("saving a sync state", "PUT", _state_path(bucket_id, state), upload=whole(body))

    async def appliance_config(self, owner: str, key: str) -> bytes:
        """Give the JSON text of the config that was uploaded as `key` to project `owner`."""
        doing = f"fetching the config {owner}/{key}"
        path = f"v1/appliance-configs/{_name(owner)}/{_name(key)}"
        try:
            response, body = await self._exchange(doing, "GET", path, longest=LARGEST)
            return read_config(doing, response, _complete(doing, body, LARGEST), self._clock.now())
        except NotFoundError as error:
            error.hint = (
                "check --remote-config-owner and --remote-config-key, upload the config to the platform, and see that "
                "the token's user has access to the project"
            )
            raise

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _read_elements(
        self,
        doing: str,
        path: str,
        reader: ElementReader,
        take: Callable[[Mapping[str, Any]], object],
        query: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Read an answer with a long array, whose elements go to `take`; give the rest of it, once all is well."""
        async with self._answered(doing, "GET", path, query=query) as response:
            try:
                async for piece in response.aiter_raw():
                    for element in reader.feed(piece):
                        _take(element, take)
            except ValueError as error:
                raise PlatformError(f"{doing}: the platform's answer makes no sense", scope=Scope.PROCESS) from error
        return read_answer(doing, response, reader.rest(), self._clock.now())

    async def _call(
        self, doing: str, method: str, path: str, *, upload: Upload | None = None, longest: int = _SMALL
    ) -> dict[str, Any]:
        response, body = await self._exchange(doing, method, path, upload=upload, longest=longest)
        return read_answer(doing, response, _complete(doing, body, longest), self._clock.now())

    async def _exchange(
        self,
        doing: str,
        method: str,
        path: str,
        *,
        longest: int,
        upload: Upload | None = None,
    ) -> tuple[httpx.Response, bytes]:
        """Send a request, and give the answer with up to a little more than `longest` bytes of its body."""
        async with self._answered(doing, method, path, upload=upload) as response:
            return response, await _body(response, longest)

    @asynccontextmanager
    async def _answered(
        self,
        doing: str,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        upload: Upload | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """Send a request and have its answer open. What goes wrong on the way, also while it is read, becomes ours."""
        # Paths are relative and their names are quoted, so there is nothing to resolve.
        url = httpx.URL(self._endpoint + path)
        headers = {
            "Authorization": f"Bearer {self._token.get_secret_value()}",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"ews-sync/{__version__}",
        }
        content: AsyncIterator[bytes] | None = None
        if upload is not None:
            # With its length, which not every proxy can do without.
            headers |= {"Content-Type": "application/json", "Content-Length": str(upload.size)}
            content = upload.pieces
        try:
            async with asyncio.timeout(_DEADLINE):
                request = self._http.build_request(
                    method, url, params=query, content=content, headers=headers, timeout=self._timeout
                )
                response = await self._http.send(request, stream=True)
                try:
                    yield response
                finally:
                    await response.aclose()
        # RuntimeError is what httpx has for a closed client, and uvloop for a transport that closes underneath it.
        except (httpx.HTTPError, httpx.InvalidURL, OSError, RuntimeError, UnicodeError) as error:
            presented = await presented_certificate(error, url)
            raise connection_error(doing, error, url, presented) from error


def whole(body: bytes) -> Upload:
    """Make an upload of bytes that are there already."""

    async def pieces() -> AsyncIterator[bytes]:
        yield body

    return Upload(len(body), pieces())


def _complete(doing: str, body: bytes, longest: int) -> bytes:
    if len(body) > longest:
        raise PlatformError(f"{doing}: the platform's answer does not end", scope=Scope.PROCESS)
    return body


async def _body(response: httpx.Response, longest: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    async for piece in response.aiter_raw():
        pieces.append(piece)
        size += len(piece)
        if size > longest:
            break
    return b"".join(pieces)


def _take(element: bytes, take: Callable[[Mapping[str, Any]], object]) -> None:
    value = json.loads(element)
    if isinstance(value, dict):
        take(value)


def _stored(email: Mapping[str, Any]) -> StoredEmail:
    metadata = email.get("metadata")
    folder = metadata.get("folder") if isinstance(metadata, dict) else None
    path = tuple(name for name in folder if isinstance(name, str)) if isinstance(folder, list) else ()
    return StoredEmail(str(email.get("mailbox", "")), path)


def _no_bucket(bucket: Bucket, error: PlatformError) -> NotFoundError:
    return NotFoundError(
        f"bucket {bucket} is not there, or the API token may not see it",
        code=error.code,
        hint="check the mailbox's bucket.owner and bucket.name in the config, create the bucket in the platform, "
        "or give the token's user access to its project",
    )


def _bucket_path(bucket: Bucket) -> str:
    return f"_private/buckets/{_name(bucket.owner)}/{_name(bucket.name)}"


def _state_path(bucket_id: str, state: Mapping[str, object]) -> str:
    key = f"{state['mailbox_name']}\n{state['folder_id']}"
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    return f"_private/buckets/id:{_name(bucket_id)}/keyed-sync-state/{digest}"


def _name(name: str) -> str:
    """Give a name as one segment of a path; a dot alone would mean a directory."""
    quoted = quote(name.encode("utf-8", "surrogatepass"), safe="")
    return quoted.replace(".", "%2E") if quoted.strip(".") == "" else quoted

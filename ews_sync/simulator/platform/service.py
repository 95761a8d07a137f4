"""The platform without HTTP: what a request means, and what it is answered."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from ews_sync.simulator.platform import contract
from ews_sync.simulator.platform.calls import PERMISSIONS, WITHOUT_BODY, Operation, Route
from ews_sync.simulator.platform.errors import ApiError
from ews_sync.simulator.platform.faults import CursorForgotten, CursorRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from ews_sync.simulator.faults import Disturbance
    from ews_sync.simulator.platform.access import Token
    from ews_sync.simulator.platform.store import Bucket, PlatformStore, StoredEmail

_USER: Final = {
    "id": "57a9d1a0",
    "username": "stand-in",
    "email": "stand-in@example.com",
    "created": "2020-01-01T00:00:00Z",
    "global_permissions": [],
    "organisation_permissions": {},
    "sso_global_permissions": [],
    "verified": True,
}


@dataclass(frozen=True, slots=True)
class Request:
    """A request that was understood. `content` is what its body says: a type of `contract.py` for each operation."""

    route: Route
    content: Any = None

    @property
    def emails(self) -> tuple[contract.NewEmail, ...]:
        """The emails that it uploads."""
        return self.content if self.route.operation is Operation.PUT_EMAILS and self.content is not None else ()

    @property
    def mailboxes(self) -> tuple[str, ...]:
        """The mailboxes that it is about, each once."""
        if self.route.operation is Operation.PUT_KEYED_SYNC_STATE and self.content is not None:
            return (self.content["mailbox_name"],)
        if self.route.operation is Operation.KEYED_SYNC_STATE_IDS and self.content is not None:
            return (self.content,)
        return tuple(dict.fromkeys(email["mailbox"] for email in self.emails))

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the emails that it is about."""
        return self.route.ids or tuple(email["id"] for email in self.emails)


def read(route: Route, content_type: str, body: bytes | bytearray) -> Any:  # noqa: ANN401 - each operation has its own
    """Read what a body says.

    Raises:
        ApiError: it does not say what the operation takes.

    """
    operation = route.operation
    if operation in WITHOUT_BODY:
        if body:
            raise ApiError(400, "this call has no body")
        return None
    if operation is Operation.PUT_CONFIG:
        return contract.read_config(content_type, body)
    if content_type.partition(";")[0].strip().casefold() != "application/json":
        raise ApiError(415, "the Content-Type application/json is expected")
    if operation is Operation.PUT_KEYED_SYNC_STATE:
        return contract.read_keyed_sync_state(body, route.state_id)
    if operation in {Operation.READ_EMAILS, Operation.QUERY_EMAILS}:
        return contract.read_page(body, is_query=operation is Operation.QUERY_EMAILS)
    return _READERS[operation](body)


_READERS: Final[dict[Operation, Callable[[bytes | bytearray], Any]]] = {
    Operation.CREATE_BUCKET: contract.read_new_bucket,
    Operation.PUT_EMAILS: contract.read_emails,
    Operation.KEYED_SYNC_STATE_IDS: contract.read_mailbox_name,
    Operation.REFRESH_PERMISSIONS: contract.read_empty,
}


class PlatformService:
    """Answers requests out of a store. With `bare_config` a config is given as it is, else beside the status."""

    def __init__(self, store: PlatformStore, *, bare_config: bool = False) -> None:
        self.store = store
        self._bare_config = bare_config

    def bucket_name(self, route: Route) -> str:
        """Return the full name of the bucket that a request is about, "" for none."""
        if route.operation in {Operation.GET_CONFIG, Operation.PUT_CONFIG}:
            return ""
        bucket = self.store.bucket_by_id(route.bucket_id) if route.bucket_id else None
        if bucket is not None:
            return bucket.full_name
        return f"{route.owner}/{route.name}" if route.owner else ""

    def answer(self, request: Request, token: Token, disturbance: Disturbance) -> dict[str, Any]:
        """Carry a request out, and return the body of its answer.

        Raises:
            ApiError: it is refused, and nothing has changed.

        """
        operation = request.route.operation
        if operation in _ON_BUCKETS:
            bucket = self._bucket(request.route, token)
            _permit(operation, token)
            answer = _ON_BUCKETS[operation](self.store, bucket, _without_cursor(request, disturbance))
        else:
            _permit(operation, token)
            answer = _ON_THE_WHOLE[operation](self.store, request, token)
        if operation is Operation.GET_CONFIG and self._bare_config:
            bare: dict[str, Any] = answer["config"]
            return bare
        return {"status": "ok", **answer}

    def _bucket(self, route: Route, token: Token) -> Bucket:
        bucket = (
            self.store.bucket_by_id(route.bucket_id) if route.bucket_id else self.store.bucket(route.owner, route.name)
        )
        if bucket is None or not token.sees(bucket.full_name):
            raise ApiError(404, f"there is no bucket {route.bucket_id or f'{route.owner}/{route.name}'}")
        return bucket


def _permit(operation: Operation, token: Token) -> None:
    needed = PERMISSIONS.get(operation)
    if needed is not None and needed not in token.permissions:
        raise ApiError(403, f"the token lacks the permission {needed}")


def _without_cursor(request: Request, disturbance: Disturbance) -> Request:
    if disturbance.find(CursorRefused) is not None:
        raise ApiError(400, "keyed_sync_state.cursor: unknown field")
    if disturbance.find(CursorForgotten) is None:
        return request
    return replace(request, content={name: value for name, value in request.content.items() if name != "cursor"})


# --- buckets


def _get_buckets(store: PlatformStore, _request: Request, token: Token) -> dict[str, Any]:
    return {"buckets": [_bucket_json(bucket) for bucket in store.buckets() if token.sees(bucket.full_name)]}


def _create_bucket(store: PlatformStore, request: Request, _token: Token) -> dict[str, Any]:
    owner, name = request.route.owner, request.route.name
    if store.bucket(owner, name) is not None:
        raise ApiError(409, f"there is a bucket {owner}/{name} already")
    return {"bucket": _bucket_json(store.create_bucket(owner, name, request.content.title))}


def _get_bucket(_store: PlatformStore, bucket: Bucket, _request: Request) -> dict[str, Any]:
    return {"bucket": _bucket_json(bucket)}


def _delete_bucket(store: PlatformStore, bucket: Bucket, _request: Request) -> dict[str, Any]:
    store.delete_bucket(bucket.owner, bucket.name)
    return {}


def _get_statistics(store: PlatformStore, bucket: Bucket, _request: Request) -> dict[str, Any]:
    return {"statistics": {"count": {"kind": "exact", "value": store.count(bucket.owner, bucket.name)}}}


# --- emails


def _put_emails(store: PlatformStore, bucket: Bucket, request: Request) -> dict[str, Any]:
    store.put_emails(bucket, request.emails)
    return {}


def _read_emails(store: PlatformStore, bucket: Bucket, request: Request) -> dict[str, Any]:
    page: contract.PageRequest = request.content
    found = store.page(bucket, page, _position(page.continuation))
    emails = found[: page.limit]
    has_more = len(found) > page.limit
    answer: dict[str, Any] = {"emails": [_email_json(email) for email in emails]}
    if has_more:
        answer["continuation"] = f"{emails[-1].position:x}"
    if request.route.operation is Operation.QUERY_EMAILS:
        answer["more_results"] = has_more
    return answer


def _get_emails(store: PlatformStore, bucket: Bucket, request: Request) -> dict[str, Any]:
    return {"emails": [_email_json(email) for email in store.emails_by_id(bucket, request.route.ids[0])]}


def _delete_emails(store: PlatformStore, bucket: Bucket, request: Request) -> dict[str, Any]:
    store.delete_emails(bucket, request.route.ids)
    return {}


# --- keyed sync states


def _get_keyed_sync_states(store: PlatformStore, bucket: Bucket, _request: Request) -> dict[str, Any]:
    return {"keyed_sync_states": store.keyed_sync_states(bucket.owner, bucket.name)}


def _keyed_sync_state_ids(store: PlatformStore, bucket: Bucket, request: Request) -> dict[str, Any]:
    return {"keyed_sync_state_ids": store.keyed_sync_state_ids(bucket, request.content)}


def _put_keyed_sync_state(store: PlatformStore, bucket: Bucket, request: Request) -> dict[str, Any]:
    store.put_keyed_sync_state(bucket, request.route.state_id, request.content)
    return {}


def _delete_keyed_sync_state(store: PlatformStore, bucket: Bucket, request: Request) -> dict[str, Any]:
    if not store.delete_keyed_sync_state(bucket, request.route.state_id):
        raise ApiError(404, f"there is no keyed sync state {request.route.state_id}")
    return {}


# --- the rest


def _get_config(store: PlatformStore, request: Request, _token: Token) -> dict[str, Any]:
    config = store.config(request.route.owner, request.route.name)
    if config is None:
        raise ApiError(404, f"there is no config {request.route.owner}/{request.route.name}")
    return {"config": config}


def _put_config(store: PlatformStore, request: Request, _token: Token) -> dict[str, Any]:
    store.put_config(request.route.owner, request.route.name, request.content)
    return {}


def _get_current_user(_store: PlatformStore, _request: Request, _token: Token) -> dict[str, Any]:
    return {"user": _USER}


def _refresh_permissions(_store: PlatformStore, _request: Request, _token: Token) -> dict[str, Any]:
    return {}


_ON_BUCKETS: Final[dict[Operation, Callable[[PlatformStore, Bucket, Request], dict[str, Any]]]] = {
    Operation.GET_BUCKET: _get_bucket,
    Operation.DELETE_BUCKET: _delete_bucket,
    Operation.GET_STATISTICS: _get_statistics,
    Operation.PUT_EMAILS: _put_emails,
    Operation.READ_EMAILS: _read_emails,
    Operation.QUERY_EMAILS: _read_emails,
    Operation.GET_EMAILS: _get_emails,
    Operation.DELETE_EMAILS: _delete_emails,
    Operation.GET_KEYED_SYNC_STATES: _get_keyed_sync_states,
    Operation.KEYED_SYNC_STATE_IDS: _keyed_sync_state_ids,
    Operation.PUT_KEYED_SYNC_STATE: _put_keyed_sync_state,
    Operation.DELETE_KEYED_SYNC_STATE: _delete_keyed_sync_state,
}
_ON_THE_WHOLE: Final[dict[Operation, Callable[[PlatformStore, Request, Token], dict[str, Any]]]] = {
    Operation.GET_BUCKETS: _get_buckets,
    Operation.CREATE_BUCKET: _create_bucket,
    Operation.GET_CONFIG: _get_config,
    Operation.PUT_CONFIG: _put_config,
    Operation.GET_CURRENT_USER: _get_current_user,
    Operation.REFRESH_PERMISSIONS: _refresh_permissions,
}


def _bucket_json(bucket: Bucket) -> dict[str, Any]:
    created_at = bucket.created_at.replace(tzinfo=None).isoformat() + "Z"
    return {"id": bucket.id, "name": bucket.name, "owner": bucket.owner, "created_at": created_at}


def _email_json(stored: StoredEmail) -> dict[str, Any]:
    """Give an email as it is read back: `attachments` always there, as the published client has it."""
    times = {"created_at": stored.created_at, "updated_at": stored.updated_at}
    return {"attachments": [], **stored.email, **times}


def _position(continuation: str | None) -> int:
    try:
        return 0 if continuation is None else int(continuation, 16)
    except ValueError as error:
        raise ApiError(400, "continuation: not one that was given out") from error

"""The calls of the platform's API: which path and method is which operation, and what it takes to be allowed to.

Names of permissions and paths are those of the platform's published command line client. It puts a bucket's full name
into a path as one segment, its slash escaped (owner%2Fname); both that and a plain slash mean the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from ews_sync.simulator.platform.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


class Permission(StrEnum):
    """What a token allows."""

    BUCKETS_READ = "buckets-read"
    """Without it, every bucket is as if it were not there."""
    BUCKETS_APPEND = "buckets-append"
    """Upload emails, and write sync states."""
    BUCKETS_WRITE = "buckets-write"
    """Make and delete buckets, and delete what is in them."""
    CONFIG_READ = "appliance-config-read"
    CONFIG_WRITE = "appliance-config-write"


class Operation(StrEnum):
    """What can be asked for."""

    GET_BUCKETS = "get_buckets"
    GET_BUCKET = "get_bucket"
    CREATE_BUCKET = "create_bucket"
    DELETE_BUCKET = "delete_bucket"
    GET_STATISTICS = "get_statistics"
    PUT_EMAILS = "put_emails"
    READ_EMAILS = "read_emails"
    """A page of all (POST)."""
    QUERY_EMAILS = "query_emails"
    """A page of those of a mailbox or of a time."""
    GET_EMAILS = "get_emails"
    """Those with an id (GET)."""
    DELETE_EMAILS = "delete_emails"
    GET_KEYED_SYNC_STATES = "get_keyed_sync_states"
    KEYED_SYNC_STATE_IDS = "keyed_sync_state_ids"
    PUT_KEYED_SYNC_STATE = "put_keyed_sync_state"
    DELETE_KEYED_SYNC_STATE = "delete_keyed_sync_state"
    GET_CONFIG = "get_config"
    PUT_CONFIG = "put_config"
    GET_CURRENT_USER = "get_current_user"
    REFRESH_PERMISSIONS = "refresh_permissions"


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes. `owner` and `name` are a bucket's or a config's, or `bucket_id` names the bucket.

    `state_id` is a keyed sync state's; `ids` are the emails' ids that the query has.
    """

    operation: Operation
    owner: str = ""
    name: str = ""
    bucket_id: str = ""
    state_id: str = ""
    ids: tuple[str, ...] = ()


_MOST_DELETED: Final = 32
"""Emails that one request can delete (`DELETION_BATCH_SIZE` of the published client)."""
_NAME: Final = "[A-Za-z0-9_-]{1,256}"
_BUCKETS: Final = "/api/_private/buckets"
_BY_NAME: Final = rf"{_BUCKETS}/(?P<owner>{_NAME})/(?P<name>{_NAME})"
_BY_ID: Final = rf"{_BUCKETS}/id:(?P<bucket_id>[0-9a-fA-F]+)"
_STATE: Final = rf"{_BY_ID}/keyed-sync-state/(?P<state_id>[0-9a-f]{{64}})"
_CONFIG: Final = rf"/api/v1/appliance-configs/(?P<owner>{_NAME})/(?P<name>{_NAME})"

_PATHS: Final[tuple[tuple[str, dict[str, Operation]], ...]] = (
    (_BUCKETS, {"GET": Operation.GET_BUCKETS}),
    (_BY_NAME, {"GET": Operation.GET_BUCKET, "PUT": Operation.CREATE_BUCKET}),
    (_BY_ID, {"GET": Operation.GET_BUCKET, "DELETE": Operation.DELETE_BUCKET}),
    (rf"{_BY_NAME}/statistics", {"GET": Operation.GET_STATISTICS}),
    (
        rf"{_BY_NAME}/emails",
        {
            "PUT": Operation.PUT_EMAILS,
            "POST": Operation.READ_EMAILS,
            "GET": Operation.GET_EMAILS,
            "DELETE": Operation.DELETE_EMAILS,
        },
    ),
    (rf"{_BY_NAME}/emails/query", {"POST": Operation.QUERY_EMAILS}),
    (rf"{_BY_ID}/keyed-sync-states/", {"GET": Operation.GET_KEYED_SYNC_STATES}),
    (rf"{_BY_ID}/keyed-sync-state-ids", {"POST": Operation.KEYED_SYNC_STATE_IDS}),
    (_STATE, {"PUT": Operation.PUT_KEYED_SYNC_STATE, "DELETE": Operation.DELETE_KEYED_SYNC_STATE}),
    (_CONFIG, {"GET": Operation.GET_CONFIG, "PUT": Operation.PUT_CONFIG}),
    ("/auth/user", {"GET": Operation.GET_CURRENT_USER}),
    ("/auth/refresh-user-permissions", {"POST": Operation.REFRESH_PERMISSIONS}),
)
_COMPILED: Final = tuple((re.compile(path, re.ASCII), methods) for path, methods in _PATHS)

WITHOUT_BODY: Final = frozenset(
    operation for _, methods in _PATHS for method, operation in methods.items() if method in {"GET", "DELETE"}
)
PERMISSIONS: Final = {
    Operation.PUT_EMAILS: Permission.BUCKETS_APPEND,
    Operation.PUT_KEYED_SYNC_STATE: Permission.BUCKETS_APPEND,
    Operation.CREATE_BUCKET: Permission.BUCKETS_WRITE,
    Operation.DELETE_BUCKET: Permission.BUCKETS_WRITE,
    Operation.DELETE_EMAILS: Permission.BUCKETS_WRITE,
    Operation.DELETE_KEYED_SYNC_STATE: Permission.BUCKETS_WRITE,
    Operation.GET_CONFIG: Permission.CONFIG_READ,
    Operation.PUT_CONFIG: Permission.CONFIG_WRITE,
}
"""What an operation needs, besides that its bucket can be seen."""


def route(method: str, path: str, query: Sequence[tuple[str, str]]) -> Route:
    """Find out where a request goes. `path` is as it was sent, escapes and all.

    Raises:
        ApiError: 404, 405, or 400 for a query that the operation does not have.

    """
    plain = unquote(path)
    for pattern, methods in _COMPILED:
        match = pattern.fullmatch(plain)
        if match is None:
            continue
        operation = methods.get(method)
        if operation is None:
            raise ApiError(405, f"{method} is not allowed here, but {' and '.join(sorted(methods))}")
        return Route(operation, **match.groupdict(), ids=_ids(operation, query))
    raise ApiError(404, f"there is nothing at {plain}")


def _ids(operation: Operation, query: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Check the query, and return the emails' ids in it."""
    allowed: Collection[str] = ()
    most = 0
    if operation is Operation.PUT_EMAILS:
        allowed = ("no_charge",)
    elif operation in {Operation.GET_EMAILS, Operation.DELETE_EMAILS}:
        allowed, most = ("id",), 1 if operation is Operation.GET_EMAILS else _MOST_DELETED
    for name, value in query:
        if name not in allowed:
            raise ApiError(400, f"the query parameter {name} is unknown here")
        if name == "no_charge" and value not in {"true", "false"}:
            raise ApiError(400, "the query parameter no_charge must be true or false")
    ids = tuple(value for name, value in query if name == "id")
    if most and not 1 <= len(ids) <= most:
        raise ApiError(400, f"the query must have the parameter id, at most {most} times")
    return ids

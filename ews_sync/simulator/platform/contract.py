"""What requests to the platform must look like: each field's type, and nothing beside them.

The fields are those of the platform's published command line client (`NewEmail`, `EmailMetadata`, `AttachmentMetadata`,
`KeyedSyncState`, `NewBucket`; crate reinfer-client 0.43.0); which of them must be there is what that client cannot do
without. `cursor` is ews-sync's own. A body that differs is refused as a whole: nothing in here mends anything.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from email.parser import BytesParser
from email.policy import HTTP
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from ews_sync.simulator.platform.errors import ApiError
from ews_sync.simulator.platform.json_text import read_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

NewEmail: TypeAlias = dict[str, Any]
"""An email as it is uploaded; it has passed `read_emails`."""
KeyedSyncState: TypeAlias = dict[str, Any]
"""A folder's state as it is uploaded; it has passed `read_keyed_sync_state`."""

LARGEST_PAGE: Final = 256
"""Emails that a page can have (`EmailsIter::MAX_PAGE_SIZE` of the published client)."""
_TIME: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?(?:Z|\+00:00)", re.ASCII
)


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which emails are to be read back: `limit` of them behind `continuation`, and perhaps not all.

    The times are nanoseconds since 1970, from `since` on and before `before`.
    """

    limit: int
    continuation: str | None = None
    mailbox: str | None = None
    since: int | None = None
    before: int | None = None


@dataclass(frozen=True, slots=True)
class NewBucket:
    """A bucket that is to be made."""

    title: str | None = None


# --- values


def _refused(path: str, wanted: str) -> ApiError:
    return ApiError(400, f"{path}: {wanted}")


def _text(value: object, path: str) -> None:
    if not isinstance(value, str):
        raise _refused(path, "a string is expected")


def _name(value: object, path: str) -> None:
    if not isinstance(value, str) or not value:
        raise _refused(path, "a string that is not empty is expected")


def _texts(value: object, path: str) -> None:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise _refused(path, "a list of strings is expected")


def _size(value: object, path: str) -> None:
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise _refused(path, "a whole number of bytes is expected")


def _limit(value: object, path: str) -> None:
    if type(value) is not int or not 1 <= value <= LARGEST_PAGE:
        raise _refused(path, f"a whole number from 1 to {LARGEST_PAGE} is expected")


def _flag(value: object, path: str) -> None:
    if not isinstance(value, bool):
        raise _refused(path, "true or false is expected")


def _time(value: object, path: str) -> None:
    try:
        nanoseconds(cast("str", value))
    except (TypeError, ValueError) as error:
        raise _refused(path, "a time in UTC is expected, such as 2020-01-01T00:00:00Z") from error


def _one_of(*words: str) -> Callable[[object, str], None]:
    def check(value: object, path: str) -> None:
        if value not in words:
            raise _refused(path, f"{' or '.join(words)} is expected")

    return check


def _or_null(check: Callable[[object, str], None]) -> Callable[[object, str], None]:
    def check_unless_null(value: object, path: str) -> None:
        if value is not None:
            check(value, path)

    return check_unless_null


def nanoseconds(text: str) -> int:
    """Return a time's nanoseconds since 1970, 00:00 UTC.

    Raises:
        ValueError: it is not in UTC, not as RFC 3339 has it, or not in the calendar.
        TypeError: it is not even a string.

    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a time in UTC")
    # Whole seconds, which a float has exactly.
    seconds = int(datetime.fromisoformat(f"{match[1]}+00:00").timestamp())
    return seconds * 1_000_000_000 + (int(match[2].ljust(9, "0")) if match[2] else 0)


# --- objects


@dataclass(frozen=True, slots=True)
class _Field:
    check: Callable[[object, str], None]
    is_required: bool = False


def _check(value: object, path: str, fields: Mapping[str, _Field]) -> None:
    """Refuse what is no object, has a field that `fields` does not have, lacks one, or has a wrong one."""
    if not isinstance(value, dict):
        raise _refused(path or "the body", "an object is expected")
    prefix = f"{path}." if path else ""
    for name, inner in value.items():
        field = fields.get(name)
        if field is None:
            raise ApiError(400, f"{prefix}{name}: unknown field")
        field.check(inner, f"{prefix}{name}")
    for name, field in fields.items():
        if field.is_required and name not in value:
            raise ApiError(400, f"{prefix}{name}: the field is missing")


def _object(fields: Mapping[str, _Field]) -> Callable[[object, str], None]:
    return lambda value, path: _check(value, path, fields)


def _list_of(fields: Mapping[str, _Field]) -> Callable[[object, str], None]:
    def check(value: object, path: str) -> None:
        if not isinstance(value, list):
            raise _refused(path, "a list is expected")
        for number, inner in enumerate(value):
            _check(inner, f"{path}[{number}]", fields)

    return check


_METADATA: Final = {
    "sensitivity": _Field(_text),
    "size": _Field(_size),
    "categories": _Field(_texts),
    "importance": _Field(_text),
    "has_attachments": _Field(_flag),
    "conversation_id": _Field(_text),
    "conversation_topic": _Field(_text),
    "is_read": _Field(_flag),
    "folder": _Field(_texts),
    "received_at": _Field(_time),
}
_ATTACHMENT: Final = {
    "name": _Field(_text, is_required=True),
    "size": _Field(_size, is_required=True),
    "content_type": _Field(_text, is_required=True),
    "attachment_reference": _Field(_text),
    "content_hash": _Field(_text),
}
_EMAIL: Final = {
    "id": _Field(_name, is_required=True),
    "mailbox": _Field(_name, is_required=True),
    "timestamp": _Field(_time, is_required=True),
    "mime_content": _Field(_text, is_required=True),
    "metadata": _Field(_object(_METADATA)),
    "attachments": _Field(_list_of(_ATTACHMENT)),
}
_EMAILS: Final = {"emails": _Field(_list_of(_EMAIL), is_required=True)}
_PAGE: Final = {"limit": _Field(_limit, is_required=True), "continuation": _Field(_text)}
_QUERY: Final = {
    **_PAGE,
    "mailbox_name": _Field(_text),
    "from_timestamp": _Field(_time),
    "to_timestamp": _Field(_time),
}
_STATE: Final = {
    "mailbox_name": _Field(_name, is_required=True),
    "folder_id": _Field(_name, is_required=True),
    "folder_path": _Field(_or_null(_texts)),
    "status": _Field(_one_of("IN_PROGRESS", "UP_TO_DATE"), is_required=True),
    "synced_until": _Field(_or_null(_time)),
    "last_synced_at": _Field(_time, is_required=True),
    "cursor": _Field(_text),
}
_KEYED_SYNC_STATE: Final = {"keyed_sync_state": _Field(_object(_STATE), is_required=True)}
_STATE_IDS: Final = {"mailbox_name": _Field(_text, is_required=True)}
_BUCKET: Final = {"bucket_type": _Field(_one_of("emails"), is_required=True), "title": _Field(_text)}
_BUCKETS: Final = {"bucket": _Field(_object(_BUCKET), is_required=True)}


# --- bodies


def read_emails(body: bytes | bytearray) -> tuple[NewEmail, ...]:
    """Read `{"emails": [NewEmail, …]}`.

    Raises:
        ApiError: 400, with the email and the field that are wrong.

    """
    value: Any = read_json(body)
    try:
        _check(value, "", _EMAILS)
    except ApiError as error:
        raise ApiError(error.status, f"{error.message}{_which(value, error.message)}") from error
    return tuple(value["emails"])


def _which(value: Any, message: str) -> str:  # noqa: ANN401 - anything can have been sent
    """Name the email that a message is about by its id, for people who look for it."""
    match = re.match(r"emails\[([0-9]+)\]", message)
    email = value["emails"][int(match[1])] if match else None
    return f' (id "{email["id"]}")' if isinstance(email, dict) and isinstance(email.get("id"), str) else ""


def read_keyed_sync_state(body: bytes | bytearray, state_id: str) -> KeyedSyncState:
    """Read `{"keyed_sync_state": KeyedSyncState}`, whose id must be that of its mailbox and folder.

    Raises:
        ApiError: 400.

    """
    value: Any = read_json(body)
    _check(value, "", _KEYED_SYNC_STATE)
    state: KeyedSyncState = value["keyed_sync_state"]
    wanted = hashlib.sha256(f"{state['mailbox_name']}\n{state['folder_id']}".encode()).hexdigest()
    if state_id != wanted:
        raise ApiError(400, "the id is not the SHA-256, in hex, of mailbox_name, a line feed and folder_id")
    return state


def read_mailbox_name(body: bytes | bytearray) -> str:
    """Read `{"mailbox_name": …}`.

    Raises:
        ApiError: 400.

    """
    value: Any = read_json(body)
    _check(value, "", _STATE_IDS)
    return str(value["mailbox_name"])


def read_page(body: bytes | bytearray, *, is_query: bool) -> PageRequest:
    """Read `{"limit": n, "continuation"?: c}`, and for a query the filters beside them.

    Raises:
        ApiError: 400.

    """
    value: Any = read_json(body)
    _check(value, "", _QUERY if is_query else _PAGE)
    since, before = value.get("from_timestamp"), value.get("to_timestamp")
    return PageRequest(
        value["limit"],
        value.get("continuation"),
        value.get("mailbox_name"),
        None if since is None else nanoseconds(since),
        None if before is None else nanoseconds(before),
    )


def read_new_bucket(body: bytes | bytearray) -> NewBucket:
    """Read `{"bucket": {"bucket_type": "emails", "title"?: …}}`.

    Raises:
        ApiError: 400.

    """
    value: Any = read_json(body)
    _check(value, "", _BUCKETS)
    return NewBucket(value["bucket"].get("title"))


def read_empty(body: bytes | bytearray) -> None:
    """Read `{}`.

    Raises:
        ApiError: 400.

    """
    _check(read_json(body), "", {})


def read_config(content_type: str, body: bytes | bytearray) -> dict[str, Any]:
    """Read a config from the field `file` of a form, as `curl -F file=@config.json` sends it: any JSON object.

    Raises:
        ApiError: 400; 415 when it is no form.

    """
    if not content_type.casefold().startswith("multipart/form-data"):
        raise ApiError(415, "multipart/form-data is expected, with the config in its field 'file'")
    form = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    parts: Sequence[Any] = list(form.iter_parts()) if form.is_multipart() else []
    files = [part for part in parts if part.get_param("name", header="content-disposition") == "file"]
    if len(parts) != 1 or len(files) != 1:
        raise ApiError(400, "the form must have one field, 'file', with the config")
    config = read_json(files[0].get_payload(decode=True) or b"")
    if not isinstance(config, dict):
        raise ApiError(400, "the config must be a JSON object")
    return config

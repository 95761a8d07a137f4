"""What goes wrong only at the platform, as data; the rest is in `simulator/faults.py`, the plan is the same.

plan = FaultPlan(seed=7)
plan.add(api_error(500), probability=0.05)
plan.add(api_error(429, retry_after="2"), probability=0.03)
plan.add(RequestTooLarge(400_000))
plan.add(RefusedEmail(frozenset({"<1@example.com>"})))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ews_sync.simulator.faults import HttpError, TargetedEffect
from ews_sync.simulator.platform.calls import Operation
from ews_sync.simulator.platform.json_text import write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ews_sync.simulator.faults import Call


def api_error(status: int, message: str = "something went wrong", *, retry_after: str | None = None) -> HttpError:
    """Return the API's own error, in JSON, before anything was stored."""
    body = write_json({"status": "error", "message": message})
    return HttpError(status, retry_after, body, "application/json")


def quota_exceeded() -> HttpError:
    """Return the error of a customer who has used up what was bought."""
    return api_error(402, "the quota of emails is used up")


@dataclass(frozen=True, slots=True)
class RequestTooLarge(TargetedEffect):
    """Bodies of more than `limit` bytes are refused with 413; with `as_page` in HTML, as by a proxy before the API."""

    limit: int
    as_page: bool = False

    def concerns(self, call: Call) -> bool:
        """Whether the body is too large."""
        return call.size > self.limit


@dataclass(frozen=True, slots=True)
class RefusedEmail(TargetedEffect):
    """A request that has one of these emails is refused as a whole: those with an id of `ids`, and those `where`."""

    ids: frozenset[str] = frozenset()
    where: Callable[[Mapping[str, Any]], bool] | None = None
    status: int = 422
    message: str = "this email cannot be stored"

    def concerns(self, call: Call) -> bool:
        """Whether such an email is in the request."""
        return self.first(call) is not None

    def first(self, call: Call) -> str | None:
        """Return the id of the first such email in the request."""
        if call.operation != Operation.PUT_EMAILS or not isinstance(call.content, tuple):
            return None
        emails: Iterable[Mapping[str, Any]] = call.content
        return next((email["id"] for email in emails if self._refuses(email)), None)

    def _refuses(self, email: Mapping[str, Any]) -> bool:
        return email["id"] in self.ids or (self.where is not None and self.where(email))


@dataclass(frozen=True, slots=True)
class CursorRefused(TargetedEffect):
    """A keyed sync state with a `cursor` is refused: the field is unknown, as to a platform that has none."""

    def concerns(self, call: Call) -> bool:
        """Whether the request has a cursor."""
        return _has_cursor(call)


@dataclass(frozen=True, slots=True)
class CursorForgotten(TargetedEffect):
    """A keyed sync state with a `cursor` is accepted, but the cursor is not kept."""

    def concerns(self, call: Call) -> bool:
        """Whether the request has a cursor."""
        return _has_cursor(call)


@dataclass(frozen=True, slots=True)
class AnswerLost(TargetedEffect):
    """The request is carried out, then the connection is reset: the client cannot know that it was."""


@dataclass(frozen=True, slots=True)
class ContradictingStatus(TargetedEffect):
    """The HTTP status says one thing and the field `status` the other: 200 with "error", or 500 with "ok".

    Nothing is stored unless `is_applied`: a client that believes the friendlier of the two loses mail.
    """

    http_status: int = 200
    status: str = "error"
    is_applied: bool = False


def _has_cursor(call: Call) -> bool:
    return (
        call.operation == Operation.PUT_KEYED_SYNC_STATE and isinstance(call.content, dict) and "cursor" in call.content
    )

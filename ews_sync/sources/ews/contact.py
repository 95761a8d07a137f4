"""The first contact with a server: one request goes ahead until it is known that the server takes the credentials.

Accounts lock after a few wrong passwords, so a password that is refused once is not tried again, by nobody; and a
hundred mailboxes that start at the same moment must not try it a hundred times.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ews_sync.errors import AuthenticationError, ConnectionFailedError, Scope, SourceError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class FirstContact:
    """What is known of whether the server takes the credentials of one client."""

    def __init__(self) -> None:
        self._taken = False
        self._refusal: SourceError | None = None
        self._failure: ConnectionFailedError | None = None
        self._failed_doing = ""
        self._failures = 0
        self._one_at_a_time = asyncio.Lock()

    def taken(self) -> None:
        """Take note that the server let a request in."""
        self._taken = True

    @asynccontextmanager
    async def passage(self, doing: str) -> AsyncIterator[None]:
        """Let a request through: at once when the credentials are known to be good, else one after the other.

        Raises the `AuthenticationError` that an earlier request met; and, for those that waited for a request that
        found no server, the same `ConnectionFailedError` again, so that not each of them has to find out by itself.
        `doing` names the request, with which the words of its errors begin.
        """
        if self._taken:
            self._raise_refusal()
            yield
            return
        before = self._failures
        async with self._one_at_a_time:
            self._raise_refusal()
            if not self._taken:
                self._raise_failure(before, doing)
            try:
                yield
            except ConnectionFailedError as error:
                # What holds for everybody is said to each of them by whoever knows it.
                if error.scope is not Scope.PROCESS:
                    self._failures += 1
                    self._failure, self._failed_doing = error, doing
                raise

    def refused(self, error: SourceError) -> None:
        """Take note that the server refused the credentials; `error` says so. One mailbox's refusal is not kept."""
        if error.scope is Scope.PROCESS:
            self._refusal = self._refusal or error

    def _raise_refusal(self) -> None:
        known = self._refusal
        if known is not None:
            raise AuthenticationError(known.summary, code=known.code, hint=known.hint, request_id=known.request_id)

    def _raise_failure(self, since: int, doing: str) -> None:
        known = self._failure
        if known is not None and self._failures > since:
            raise ConnectionFailedError(
                f"{doing}: {known.summary.removeprefix(f'{self._failed_doing}: ')}",
                asks=known.asks,
                code=known.code,
                hint=known.hint,
                retry_after=known.retry_after,
                request_id=known.request_id,
            )

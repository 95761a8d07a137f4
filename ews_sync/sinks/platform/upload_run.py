"""One batch on its way into a bucket: cut, sent, split where it is refused, and left where it fails."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol, TypeVar

import structlog

from ews_sync.errors import Asks, SinkError
from ews_sync.sinks.platform.answers import PlatformError, RefusedError
from ews_sync.sinks.platform.uploads import grouped, size_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ews_sync.model import Clock
    from ews_sync.sinks.platform.health import Health, RequestSize, Suspects
    from ews_sync.sinks.platform.uploads import Encoded

_FAILED_IN_A_ROW = 8
"""So many failures with no success in between are the platform's, whatever a probe says. Enough to find one of 80."""


E = TypeVar("E", bound=SinkError)


def detached(error: E) -> E:
    """Give an error that can be kept: without the frames that it came through, for they know what was being sent."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


class Uploader(Protocol):
    """Sends one upload. Raises `SinkError`."""

    async def send(self, group: Sequence[Encoded]) -> None:
        """Upload emails, all or none."""

    async def probe(self) -> bool:
        """Tell whether the platform takes uploads now, with one that has no email in it."""


class UploadRun:
    """Sends a batch's emails, each until it is accepted, refused, or left.

    Afterwards `refused` are emails with why, `left` those that are not stored, and `failure` is why those are left.
    """

    def __init__(self, uploader: Uploader, health: Health, suspects: Suspects, size: RequestSize, clock: Clock) -> None:
        self.refused: list[tuple[Encoded, RefusedError]] = []
        self.left: list[Encoded] = []
        self.failure: SinkError | None = None
        self.accepted = 0
        self._uploader = uploader
        self._health = health
        self._suspects = suspects
        self._size = size
        self._clock = clock
        self._waiting: deque[tuple[Encoded, ...]] = deque()
        self._failed_in_a_row = 0
        self._probed = False

    async def run(self, emails: Iterable[Encoded]) -> None:
        """Send them. Raises nothing that a platform or a disk can bring about."""
        self._waiting.extend(grouped(emails, self._size.largest))
        while self._waiting:
            group = self._waiting.popleft()
            try:
                await self._send(group)
            except RefusedError as error:
                self._refused(group, detached(error))
            except SinkError as error:
                if not await self._goes_on_without(group, detached(error)):
                    self.failure = error
                    self.left += [*group, *(encoded for other in self._waiting for encoded in other)]
                    return

    async def _send(self, group: Sequence[Encoded]) -> None:
        rest = self._health.rest(self._clock.monotonic())
        if rest is not None:
            raise rest
        await self._uploader.send(group)
        self.accepted += 1
        self._failed_in_a_row = 0
        self._health.accepted()
        self._size.accepted()
        self._suspects.cleared(encoded.email for encoded in group)

    def _refused(self, group: tuple[Encoded, ...], error: RefusedError) -> None:
        if len(group) == 1:
            self.refused.append((group[0], error))
            return
        if error.too_large:
            size = size_of(group)
            if self._size.refused(size):
                structlog.get_logger("ews_sync.sinks").info(
                    "the platform takes no uploads as large as that; smaller ones from now on", bytes=size
                )
            others = [encoded for other in self._waiting for encoded in other]
            self._waiting = deque(grouped(others, self._size.largest))
        self._split(group)

    async def _goes_on_without(self, group: tuple[Encoded, ...], error: SinkError) -> bool:
        """Tell whether a failure is due to the emails in the group, so that the others can go on.

        Such a group is split, until the email that it is due to is alone; that one is left for the next time.
        """
        if not isinstance(error, PlatformError) or error.asks is not Asks.RETRY:
            return False
        self._health.failed(error, self._clock.monotonic())
        self._failed_in_a_row += 1
        if not self._suspects.failed((encoded.email for encoded in group), error):
            return False
        if self._failed_in_a_row > _FAILED_IN_A_ROW or not await self._is_well():
            return False
        if len(group) > 1:
            self._split(group)
            return True
        blamed = self._suspects.blamed(group[0].email, error, self._clock.monotonic())
        if isinstance(blamed, RefusedError):
            self.refused.append((group[0], blamed))
        else:
            self.left.append(group[0])
            self.failure = blamed
        return True

    async def _is_well(self) -> bool:
        """Tell whether the platform takes uploads: it has in this run, or a probe says so."""
        if not self.accepted and not self._probed:
            self._probed = await self._uploader.probe()
        return self.accepted > 0 or self._probed

    def _split(self, group: tuple[Encoded, ...]) -> None:
        middle = len(group) // 2
        self._waiting.extendleft((group[middle:], group[:middle]))

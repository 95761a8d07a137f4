"""The ids of buckets, which never change while the bucket is there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ews_sync.model import Bucket
    from ews_sync.sinks.platform.api import PlatformApi


class Buckets:
    """Looks buckets up, each once for however many mailboxes feed it."""

    def __init__(self, api: PlatformApi) -> None:
        self._api = api
        self._ids: dict[Bucket, str] = {}
        self._locks: dict[Bucket, asyncio.Lock] = {}

    async def id_of(self, bucket: Bucket) -> str:
        """Give the bucket's id. `NotFoundError` and other `PlatformError`s are not remembered."""
        async with self._locks.setdefault(bucket, asyncio.Lock()):
            known = self._ids.get(bucket)
            if known is None:
                known = self._ids[bucket] = await self._api.bucket_id(bucket)
            return known

    def forget(self, bucket: Bucket) -> None:
        """Forget the bucket: it is gone, and one of the same name would be another."""
        self._ids.pop(bucket, None)

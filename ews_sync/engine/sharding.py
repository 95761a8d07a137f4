"""Which shard of a cluster a mailbox belongs to. Pure."""

from __future__ import annotations

import hashlib


def shard_of(address: str, total_shards: int) -> int:
    """Give the number (from 0) of the shard that keeps the mailbox.

    A stable hash of the lower-cased address: every shard comes to the same answer, and adding a mailbox moves no other.
    """
    name = hashlib.sha256(address.lower().encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(name[:8], "big") % total_shards

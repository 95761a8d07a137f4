from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from ews_sync.simulator.platform.access import Token
from ews_sync.simulator.platform.server import PlatformServer
from ews_sync.simulator.platform.store import PlatformStore
from tests.simulator.platform_api import Api, plain_client
from tests.simulator.soap import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ews_sync.simulator.folder import Folder


@pytest.fixture
def client() -> Client:
    client = Client()
    client.exchange.create_mailbox("owner@example.com")
    return client


@pytest.fixture
def inbox(client: Client) -> Folder:
    return client.exchange.mailboxes["owner@example.com"].folder("Inbox")


@pytest_asyncio.fixture
async def api() -> AsyncIterator[Api]:
    """A platform in memory with a bucket owner/name, and a client with every permission."""
    with PlatformStore() as store:
        store.create_bucket("owner", "name")
        async with PlatformServer(store, [Token("secret")]) as server, plain_client() as client:
            yield Api(server, client)

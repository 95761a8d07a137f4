from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.simulator.soap import Client

if TYPE_CHECKING:
    from ews_sync.simulator.folder import Folder


@pytest.fixture
def client() -> Client:
    client = Client()
    client.exchange.create_mailbox("owner@example.com")
    return client


@pytest.fixture
def inbox(client: Client) -> Folder:
    return client.exchange.mailboxes["owner@example.com"].folder("Inbox")

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.simulator.soap import Client

if TYPE_CHECKING:
    from lxml import etree

    from ews_sync.simulator.folder import Folder


@pytest.fixture
def client() -> Client:
    client = Client()
    client.exchange.create_mailbox("owner@example.com")
    return client


@pytest.fixture
def inbox(client: Client) -> Folder:
    return client.exchange.mailboxes["owner@example.com"].folder("Inbox")


@pytest.fixture(scope="session")
def schema() -> etree.XMLSchema:
    loader = Path(__file__).resolve().parents[2].parent / "shared" / "ews-schema" / "ews_schema.py"
    if not loader.exists():
        pytest.skip("Microsoft's schemas are not part of this repository")
    spec = importlib.util.spec_from_file_location("ews_schema", loader)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    loaded: etree.XMLSchema = module.load()
    return loaded

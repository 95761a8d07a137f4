"""An answer leaves no mail behind: what hangs on a cycle stays until the collector comes by, which can be late."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from ews_sync.model import MimeBytes
from ews_sync.sources.ews.operations import ItemRecord
from tests.sources.support import cut, got, item_xml, read, response

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def alive() -> int:
    return sum(isinstance(thing, ItemRecord | MimeBytes) for thing in gc.get_objects())


@pytest.mark.parametrize("size", [100, 10**6])
def test_nothing_of_an_answer_that_was_read_is_left_once_nobody_wants_it(size: int) -> None:
    content = response("GetItem", *(got(item_xml(f"i{number}")) for number in range(20)))
    with no_collector():
        before = alive()
        answer = read(cut(content, size))
        assert alive() == before + 40
        for message in answer.messages:
            for item in message.items:
                assert item.mime is not None
                item.mime.close()
        del answer, message, item
        assert alive() == before

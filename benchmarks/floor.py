"""The floor: the least work that moves the same bytes from the server to the disk. A competitor of the benchmark.

The ids are known beforehand, messages are found by a regular expression, and a batch is one append to one file a
mailbox. No checks, no errors, no state, nothing flushed: nobody could run this, and nothing can be faster.
"""

from __future__ import annotations

import asyncio
import json
import re
from binascii import a2b_base64
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pybase64
import uvloop

from benchmarks.turn import new_parser, take_turn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_MESSAGE = re.compile(rb"<t:MimeContent[^>]*>([^<]*)<")
_HEADERS = {"Content-Type": "text/xml; charset=utf-8"}
_GET_ITEM = """<?xml version="1.0" encoding="utf-8"?>
<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"
 xmlns:m="http://schemas.microsoft.com/exchange/services/2006/messages"
 xmlns:t="http://schemas.microsoft.com/exchange/services/2006/types"><s:Header>
 <t:RequestServerVersion Version="Exchange2013"/><t:ExchangeImpersonation><t:ConnectingSID>
 <t:PrimarySmtpAddress>{address}</t:PrimarySmtpAddress></t:ConnectingSID></t:ExchangeImpersonation></s:Header>
 <s:Body><m:GetItem><m:ItemShape><t:BaseShape>IdOnly</t:BaseShape><t:IncludeMimeContent>true</t:IncludeMimeContent>
 </m:ItemShape><m:ItemIds>{ids}</m:ItemIds></m:GetItem></s:Body></s:Envelope>"""


def main() -> None:
    """Take the turn."""
    parser = new_parser(__doc__)
    parser.add_argument("--ids", type=Path, required=True, help="a JSON file with the items' ids, by mailbox")
    parser.add_argument("--batch", type=int, required=True, help="ids in a request")
    parser.add_argument("--lanes", type=int, required=True, help="requests of a mailbox at the same time")
    parser.add_argument("--pybase64", action="store_true", help="decode with pybase64, as the command does")
    options = parser.parse_args()
    ids: dict[str, list[str]] = json.loads(options.ids.read_bytes())
    floor = Floor(options.url, (options.user, options.password), options.into, options.batch, options.lanes)
    if options.pybase64:
        floor.decode = pybase64.b64decode
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        take_turn(lambda: runner.run(floor.export(ids)))


class Floor:
    """Moves the mail of all mailboxes at the same time: `batch` ids a request, `lanes` requests a mailbox at once."""

    def __init__(self, url: str, login: tuple[str, str], into: Path, batch: int, lanes: int) -> None:
        self._url = url
        self._login = login
        self._into = into
        self._batch = batch
        self._lanes = lanes
        self.decode: Callable[[bytes], bytes] = a2b_base64

    async def export(self, ids: Mapping[str, Sequence[str]]) -> int:
        """Move the items with these ids, by mailbox; give how many."""
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(auth=self._login, timeout=120, limits=limits) as http:
            return sum(await asyncio.gather(*(self._mailbox(http, *mailbox) for mailbox in ids.items())))

    async def _mailbox(self, http: httpx.AsyncClient, address: str, ids: Sequence[str]) -> int:
        batches = iter([ids[start : start + self._batch] for start in range(0, len(ids), self._batch)])
        with (self._into / f"{address}.eml").open("wb", buffering=0) as file:

            async def lane() -> int:
                moved = 0
                for batch in batches:
                    body = _GET_ITEM.format(address=address, ids="".join(f'<t:ItemId Id="{one}"/>' for one in batch))
                    response = await http.post(self._url, content=body.encode(), headers=_HEADERS)
                    messages = [self.decode(message) for message in _MESSAGE.findall(response.content)]
                    file.write(b"".join(messages))
                    moved += len(messages)
                return moved

            return sum(await asyncio.gather(*(lane() for _ in range(self._lanes))))


if __name__ == "__main__":
    main()

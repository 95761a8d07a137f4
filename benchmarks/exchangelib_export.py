"""The same export with exchangelib, the EWS client that most people take. A competitor of the benchmark.

With its defaults it is what its documentation shows: go through the folder, and write each item's message. With
`--threads` it is the best that could be made of it: the ids first, in pages as long as the server allows, then nothing
but the messages, in chunks, by several threads.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import exchangelib
from exchangelib.version import EXCHANGE_2016, Version

from benchmarks.turn import new_parser, take_turn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from concurrent.futures import Future
    from pathlib import Path

_PAGE = 1000
"""Entries of a page of ids: what Exchange allows at the most."""


def main() -> None:
    """Take the turn."""
    parser = new_parser(__doc__)
    parser.add_argument("--most", type=int, help="items of each mailbox, with --threads (default: all)")
    parser.add_argument("--threads", type=int, default=0, help="for all mailboxes together (default: its own way)")
    parser.add_argument("--chunk", type=int, default=100, help="ids in a request for messages")
    parser.add_argument("mailboxes", nargs="+")
    options = parser.parse_args()
    config = exchangelib.Configuration(
        service_endpoint=options.url,
        credentials=exchangelib.Credentials(options.user, options.password),
        auth_type=exchangelib.transport.BASIC,
        version=Version(build=EXCHANGE_2016),
        max_connections=options.threads or None,
    )

    def work() -> int:
        accounts = [_account(config, address) for address in options.mailboxes]
        if not options.threads:
            return sum(_write(account, account.inbox.all(), options.into, "") for account in accounts)
        with ThreadPoolExecutor(options.threads) as threads:
            export = _Threaded(threads, options.into, options.most, options.chunk)
            return export.run(accounts)

    take_turn(work)


def _account(config: Any, address: str) -> Any:  # noqa: ANN401 - exchangelib has no types
    return exchangelib.Account(
        address,
        config=config,
        autodiscover=False,
        access_type=exchangelib.IMPERSONATION,
        default_timezone=exchangelib.EWSTimeZone("UTC"),
    )


class _Threaded:
    """An export by several threads: one for each mailbox lists it, and any of them fetches a chunk."""

    def __init__(self, threads: ThreadPoolExecutor, into: Path, most: int | None, chunk: int) -> None:
        self._threads = threads
        self._into = into
        self._most = most
        self._chunk = chunk

    def run(self, accounts: Sequence[Any]) -> int:
        # Chunks are asked for while the rest is listed. Nobody waits for anybody in a thread of the pool.
        listings = [self._threads.submit(self._list, account) for account in accounts]
        chunks = chain.from_iterable(listing.result() for listing in listings)
        return sum(chunk.result() for chunk in chunks)

    def _list(self, account: Any) -> list[Future[int]]:  # noqa: ANN401 - exchangelib has no types
        listing = account.inbox.all().values_list("id", "changekey")
        listing.page_size = _PAGE
        ids = islice(iter(listing), self._most)
        chunks = iter(lambda: list(islice(ids, self._chunk)), [])
        return [self._threads.submit(self._fetch, account, chunk, f"{number}-") for number, chunk in enumerate(chunks)]

    def _fetch(self, account: Any, ids: list[Any], name: str) -> int:  # noqa: ANN401 - likewise
        items = account.fetch(ids, folder=account.inbox, only_fields=["mime_content"], chunk_size=self._chunk)
        return _write(account, items, self._into, name)


def _write(account: Any, items: Iterable[Any], into: Path, name: str) -> int:  # noqa: ANN401 - likewise
    """Write each item's message into a file of its own; give how many."""
    directory = into / account.primary_smtp_address
    directory.mkdir(exist_ok=True)
    number = 0
    for number, item in enumerate(items, start=1):
        (directory / f"{name}{number}.eml").write_bytes(item.mime_content)
    return number


if __name__ == "__main__":
    main()

"""`reinfer-ews status`."""

from __future__ import annotations

import asyncio
import io
from datetime import UTC, datetime

import pytest

from ews_sync.clock import SystemClock
from ews_sync.errors import ConfigurationError
from ews_sync.live_status import NoAnswerError, address_of, arranged, fetch, fitted, watch
from ews_sync.server.http import StatusServer
from ews_sync.settings.values import Bind
from ews_sync.telemetry.status import MailboxProgress, Status


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000/status?format=text"),
        ("0.0.0.0:8000", "http://127.0.0.1:8000/status?format=text"),
        ("[::]:8000", "http://[::1]:8000/status?format=text"),
        ("http://ews.example", "http://ews.example/status?format=text"),
        ("https://ews.example:444/", "https://ews.example:444/status?format=text"),
        ("http://proxy/ews/status", "http://proxy/ews/status?format=text"),
    ],
)
def test_addresses(given: str, expected: str) -> None:
    assert address_of(given) == expected


@pytest.mark.parametrize("given", ["ftp://x", "http://x:port", "http://x:99999"])
def test_what_is_no_address(given: str) -> None:
    with pytest.raises(ConfigurationError, match="is no address of an appliance"):
        address_of(given)


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


class EnoughError(Exception):
    """The watcher has seen enough."""


async def test_a_running_one_is_shown_again_and_again() -> None:
    status = Status("1.2.3", datetime.now(UTC), sink="/var/mail")
    status.mailboxes["a@x"] = MailboxProgress("a@x", "bank/mail")
    status.warn("careful")
    server = StatusServer(Bind("127.0.0.1", 0), status, SystemClock())
    await server.start()
    url = address_of(server.address)
    once = io.StringIO()
    assert await asyncio.to_thread(watch, url, once) == 0
    assert "a@x" in once.getvalue()
    assert "\x1b" not in once.getvalue()

    screen = Screen()
    seen: list[str] = []

    def look(_: float) -> None:
        seen.append(screen.getvalue())
        if len(seen) == 1:
            asyncio.run_coroutine_threadsafe(server.aclose(), loop).result()
        else:
            raise EnoughError

    loop = asyncio.get_running_loop()
    with pytest.raises(EnoughError):
        await asyncio.to_thread(watch, url, screen, look)
    first = seen[0]
    assert first.index("! careful") < first.index("MAILBOX"), "what is wrong is above what may not fit"
    assert f"no appliance answers at http://{server.address}" in seen[1], "it goes on looking"


def test_nobody_there_says_what_to_do() -> None:
    with pytest.raises(NoAnswerError, match=r"no appliance answers at http://127\.0\.0\.1:9") as caught:
        fetch(address_of("127.0.0.1:9"))
    assert "reinfer-ews status http://127.0.0.1:8000" in str(caught.value)


def test_what_does_not_fit_is_cut_and_said() -> None:
    text = "\n".join(f"line {number} " + "x" * 100 for number in range(50))
    cut = fitted(text, 40, 10).splitlines()
    assert len(cut) == 10
    assert max(map(len, cut)) <= 40
    assert cut[-1].startswith("… 41 more lines")
    assert fitted("short", 40, 10) == "short"


def test_without_trouble_nothing_is_moved() -> None:
    assert arranged("head\n\ntable\nrow\n") == "head\n\ntable\nrow"

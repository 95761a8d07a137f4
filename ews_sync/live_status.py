"""`reinfer-ews status`: the table of a running appliance in a terminal, again and again.

What it shows is what `/status?format=text` says. In a terminal that is drawn anew every two seconds, with what is wrong
on top, until Ctrl-C; into a pipe or a file it is written once.
"""

from __future__ import annotations

import http.client
import shutil
import ssl
import sys
import textwrap
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, TextIO
from urllib.parse import urlsplit

from ews_sync.errors import ConfigurationError, EwsSyncError
from ews_sync.terminal import say, write

if TYPE_CHECKING:
    from collections.abc import Callable

_EVERY = 2.0
_WITHIN = 10.0
_MOST = 16 * 1024 * 1024
_CLEAR = "\x1b[H\x1b[2J\x1b[3J"
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - nothing listens here
_NO_ADDRESS = "that is no address of an appliance: give a URL such as http://127.0.0.1:8000, without user and password"
_HINT = (
    "give the address that it listens on (--bind) as the first word, such as reinfer-ews status http://127.0.0.1:8000"
)


class NoAnswerError(EwsSyncError):
    """Nobody answers where the appliance should."""


def address_of(given: str) -> str:
    """Make the URL of the status from what was typed: a URL, or HOST:PORT as `--bind` takes it.

    Raises `ConfigurationError`, which does not repeat what could be a password.
    """
    text = given if "://" in given else f"http://{given}"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ConfigurationError((_NO_ADDRESS,)) from None
    alone = "://" not in given and port is None and ":" not in given and not _looks_like_a_host(given)
    if parts.scheme not in {"http", "https"} or "@" in parts.netloc or not host.isprintable() or " " in host or alone:
        raise ConfigurationError((_NO_ADDRESS,))
    host = _EVERYWHERE.get(host, host)
    netloc = (f"[{host}]" if ":" in host else host) + ("" if port is None else f":{port}")
    path = parts.path.rstrip("/").removesuffix("/status")
    return f"{parts.scheme}://{netloc}{path}/status?format=text"


def _looks_like_a_host(given: str) -> bool:
    return not given.isdigit()


def fetch(url: str) -> str:
    """Ask once. Raises `NoAnswerError`."""
    # No proxy: whoever looks is beside the appliance, or on the other end of a port that was forwarded.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects())
    try:
        with opener.open(url, timeout=_WITHIN) as answer:
            kind = answer.headers.get_content_type()
            text = bytes(answer.read(_MOST)).decode("utf-8", "replace")
            if answer.length:
                raise http.client.IncompleteRead(b"", answer.length)
    except urllib.error.HTTPError as error:
        reason = f"HTTP {error.code}"
    except http.client.HTTPException as error:
        reason = f"what answers there does not end its answer, or does not speak HTTP ({type(error).__name__})"
    except (OSError, ValueError) as error:
        cause = getattr(error, "reason", error)
        reason = str(getattr(cause, "strerror", None) or cause or type(error).__name__)
        reason = reason if isinstance(cause, ssl.SSLError) else reason.lower()
    else:
        if kind == "text/plain" and text.startswith("ews-sync "):
            return "\n".join(_printable(line) for line in text.splitlines())
        reason = "what answers there is not ews-sync"
    raise NoAnswerError(f"no appliance answers at {url.partition('/status')[0]}: {_printable(reason)}", hint=_HINT)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """An appliance redirects nowhere; who does is something else."""

    def redirect_request(self, *_args: object, **_more: object) -> None:
        """Follow nothing: the redirection is the answer."""


def _printable(line: str) -> str:
    """Give a line without what would upset a terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line)


def watch(url: str, output: TextIO, sleep: Callable[[float], object] = time.sleep) -> int:
    """Show the status until Ctrl-C, or once where nobody watches. Raises `NoAnswerError` when nobody ever answered."""
    if not output.isatty():
        say(output, fetch(url))
        return 0
    answered = False
    while True:
        try:
            shown = fetch(url)
            answered = True
        except NoAnswerError as error:
            if not answered:
                raise
            shown = str(error)
        size = shutil.get_terminal_size()
        if not write(output, _CLEAR + fitted(shown, size.columns, size.lines - 1, url) + "\n"):
            return 0
        sleep(_EVERY)


def fitted(text: str, columns: int, lines: int, url: str) -> str:
    """Arrange the status for a terminal: what is wrong stands above the table, whole, in at most half of the lines."""
    head, _, rest = text.partition("\n\n")
    parts = rest.split("\n\n")
    notes = [line for part in parts for line in part.splitlines() if line.startswith("! ")]
    table = [line for part in parts for line in part.splitlines() if not line.startswith("! ")]
    wrapped = [line for note in notes for line in textwrap.wrap(note, columns, subsequent_indent="  ") or [""]]
    most = max(3, lines // 2)
    if len(wrapped) > most:
        wrapped = [*wrapped[: most - 1], f"! ... and more; all of it: curl '{url}'"]
    shown = [line for line in head.splitlines() for line in textwrap.wrap(line, columns) or [""]]
    shown += ["", *wrapped] if wrapped else []
    room = lines - len(shown) - 1
    if table and room > 1:
        cut = table if len(table) <= room else [*table[: room - 1], f"... {len(table) - room + 1} more: curl '{url}'"]
        shown += [
            "",
            *(line if len(line) <= columns else f"{line[: columns - 1]}\N{HORIZONTAL ELLIPSIS}" for line in cut),
        ]
    return "\n".join(shown)


def status(given: str) -> int:
    """Run the command for the address that was given."""
    return watch(address_of(given), sys.stdout)

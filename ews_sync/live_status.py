"""`reinfer-ews status`: the table of a running appliance in a terminal, again and again.

What it shows is what `/status?format=text` says. In a terminal that is drawn anew every two seconds, with what is wrong
on top, until Ctrl-C; into a pipe or a file it is written once.
"""

from __future__ import annotations

import shutil
import sys
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
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "": "127.0.0.1"}  # noqa: S104 - nothing listens here


class NoAnswerError(EwsSyncError):
    """Nobody answers where the appliance should."""


def address_of(given: str) -> str:
    """Make the URL of the status from what was typed: a URL, or HOST:PORT as `--bind` takes it.

    Raises `ConfigurationError`.
    """
    text = given if "://" in given else f"http://{given}"
    parts = urlsplit(text)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme not in {"http", "https"} or (port is None and ":" in parts.netloc.rpartition("]")[2]):
        raise ConfigurationError((f"{given!r} is no address of an appliance, such as http://127.0.0.1:8000",))
    host = parts.netloc.rpartition(":")[0] if port is not None else parts.netloc
    netloc = _EVERYWHERE.get(host, host) + ("" if port is None else f":{port}")
    path = parts.path.rstrip("/").removesuffix("/status")
    return f"{parts.scheme}://{netloc}{path}/status?format=text"


def fetch(url: str) -> str:
    """Ask once. Raises `NoAnswerError`."""
    # No proxy: whoever looks is beside the appliance, or on the other end of a port that was forwarded.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_WITHIN) as answer:
            return bytes(answer.read(_MOST)).decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        reason = f"HTTP {error.code}"
    except (OSError, ValueError) as error:
        cause = getattr(error, "reason", error)
        reason = str(getattr(cause, "strerror", None) or cause or type(error).__name__).lower()
    raise NoAnswerError(
        f"no appliance answers at {url.partition('/status')[0]}: {reason}",
        hint="give the address that it listens on (--bind) as the first word, such as "
        "reinfer-ews status http://127.0.0.1:8000",
    )


def watch(url: str, output: TextIO, sleep: Callable[[float], object] = time.sleep) -> int:
    """Show the status until Ctrl-C, or once where nobody watches. Gives the exit code: 1 when nobody answered."""
    if not output.isatty():
        say(output, fetch(url).rstrip("\n"))
        return 0
    answered = False
    while True:
        try:
            shown = arranged(fetch(url))
            answered = True
        except NoAnswerError as error:
            if not answered:
                raise
            shown = str(error)
        size = shutil.get_terminal_size()
        if not write(output, _CLEAR + fitted(shown, size.columns, size.lines - 1) + "\n"):
            return 0
        sleep(_EVERY)


def arranged(text: str) -> str:
    """Put what is wrong, which the text has at its end, above the table, of which there may be more than fits."""
    head, _, rest = text.rstrip("\n").partition("\n\n")
    table, _, notes = rest.partition("\n\n")
    return "\n\n".join(part for part in (head, notes, table) if part)


def fitted(text: str, columns: int, lines: int) -> str:
    """Cut a text to a terminal's size; what is left out is said."""
    all_lines = text.splitlines()
    shown = all_lines if len(all_lines) <= lines else all_lines[: lines - 1]
    cut = [line if len(line) <= columns else f"{line[: columns - 1]}…" for line in shown]
    if len(shown) < len(all_lines):
        cut.append(f"… {len(all_lines) - len(shown)} more lines; all of it: reinfer-ews status | less"[:columns])
    return "\n".join(cut)


def status(given: str) -> int:
    """Run the command for the address that was given."""
    return watch(address_of(given), sys.stdout)

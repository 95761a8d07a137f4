"""The image's HEALTHCHECK: asks /healthz of the appliance that runs in the same container, and exits 0 or 1.

It runs every half a minute inside the container's own memory and processor limits, so it imports next to nothing:
`python -P -m ews_sync.probe` takes 4 MiB of its own and 15 ms of processor time. Kubernetes does not use it: its probes
ask over HTTP.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping, Sequence  # noqa: TC003 - typing, to import them only for types, takes longer

OPTION = "--bind"
VARIABLE = "REINFER_EWS_BIND"
DEFAULT = "127.0.0.1:8000"
"""As in `settings.options.BIND`, which would take longer to import than all the rest takes; a test compares them."""

_TIMEOUT = 4.0
"""Seconds for each step; less than the HEALTHCHECK's own, so that it is this module that says what is wrong."""
_LONGEST = 64 * 1024
_SHOWN = 1000
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing listens here
_REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def address_of(command: Sequence[str], environ: Mapping[str, str]) -> tuple[str, int]:
    """Give the host and port to ask, from the appliance's command line and environment.

    An address that stands for all of the container's own becomes the loopback. Raises ValueError when there is no port
    to be read.
    """
    text = environ.get(VARIABLE) or DEFAULT
    words = iter(command)
    for word in words:
        if word == OPTION:
            text = next(words, "")
        elif word.startswith(f"{OPTION}="):
            text = word.removeprefix(f"{OPTION}=")
    host, _, port = text.strip().rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    number = int(port)
    if not 0 < number < 65536:
        raise ValueError(f"{number} is no port that could be asked")
    return _LOOPBACK.get(host, host), number


def verdict(answer: bytes) -> tuple[bool, str]:
    """Tell whether an HTTP answer says healthy, and a line for people."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.partition(b"\r\n")[0].split(maxsplit=2)
    if len(status) < 2 or not status[0].startswith(b"HTTP/"):
        return False, "unhealthy: what listens there does not speak HTTP"
    if status[1] == b"200":
        return True, "healthy"
    said = " ".join(body.decode("utf-8", "replace").split())
    return False, f"unhealthy: {said[:_SHOWN] or 'it gives no reason'}"


def ask(host: str, port: int) -> bytes:
    """Give the whole answer to GET /healthz, or its beginning. Raises OSError."""
    pieces: list[bytes] = []
    size = 0
    # Not create_connection: its look-up of names loads what internationalised ones would need.
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as connection:
        connection.settimeout(_TIMEOUT)
        connection.connect((host, port))
        connection.sendall(_REQUEST)
        while size < _LONGEST and (piece := connection.recv(_LONGEST)):
            pieces.append(piece)
            size += len(piece)
    return b"".join(pieces)


def first_process(path: str = "/proc/1/cmdline") -> list[str]:
    """Give the command line of the container's first process, which is the appliance; nothing where it is not ours."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib doubles the time that this takes
            words = [os.fsdecode(word) for word in file.read().split(b"\0")]
    except OSError:
        return []
    # With --pid=host the first process is the machine's.
    return words if any(word.endswith("reinfer-ews") for word in words) else []


def main() -> int:
    """Ask; print one line; give the exit code that a HEALTHCHECK wants: 0 healthy, 1 not."""
    try:
        host, port = address_of(first_process(), os.environ)
    except ValueError as error:
        print(f"unhealthy: {OPTION} or {VARIABLE} cannot be read: {error}")  # noqa: T201 - the engine keeps it
        return 1
    try:
        healthy, line = verdict(ask(host, port))
    except OSError as error:
        healthy, line = False, f"unhealthy: no answer from {host}:{port}: {error}"
    print(line)  # noqa: T201 - the engine keeps it
    return 0 if healthy else 1


if __name__ == "__main__":
    sys.exit(main())

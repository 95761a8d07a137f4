"""What hostile input costs, in memory and in time, before it is refused: `python -m tests.fuzz.costs` prints it.

Each input is read by a process of its own, since libraries in C keep memory where Python cannot see it, and memory that
was given back once hides what the next one takes.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ews_sync.errors import EwsSyncError
from ews_sync.settings.load import read_config
from ews_sync.settings.values import RunOptions
from ews_sync.sinks.new_email_json import email_pieces
from ews_sync.sources.ews.decoding import AnswerReader
from ews_sync.sources.ews.spool import SpoolWriter
from tests.sinks.builders import an_email
from tests.sources.support import response
from tests.sources.test_hostile import ENDLESS, OPEN, endless

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MB = 1024 * 1024


def answer(pieces: Iterator[bytes]) -> int:
    """Read an answer as the source does; give how many bytes of it were taken."""
    reader = AnswerReader("reading", SpoolWriter)
    taken = 0
    try:
        for piece in pieces:
            taken += len(piece)
            reader.feed(piece)
        reader.close()
    except EwsSyncError:
        reader.discard()
    return taken


def config(data: bytes) -> int:
    """Read a config; what is wrong with it must fit on some screens."""
    try:
        read_config(RunOptions(local_files_prefix=Path("/p")), {}, data)
    except EwsSyncError as error:
        if len(str(error)) > 100_000:
            raise RuntimeError("an error without end") from error
    return len(data)


def message(data: bytes) -> int:
    """Make an email of a message into the platform's JSON."""
    for _ in email_pieces(an_email(data=data)):
        pass
    return len(data)


def large(start: bytes, piece: bytes) -> Iterator[bytes]:
    """What is taken, since it may be what it seems, and takes no memory."""
    return itertools.islice(endless(start, piece), 300)


MESSAGE = OPEN + b"<t:Message><t:MimeContent>"
ANSWERS: dict[str, Callable[[], Iterator[bytes]]] = ENDLESS | {
    "a whole message": lambda: large(MESSAGE, b"QUJD" * 16_384),
    "a message between comments": lambda: large(MESSAGE, b"QUJD<!---->" * 6000),
    "a message a letter a line": lambda: large(MESSAGE, b"Q\n" * 30_000),
    "a second message": lambda: large(MESSAGE + b"QUJD</t:MimeContent><t:MimeContent>", b"QUJD" * 16_384),
    "a message with elements in it": lambda: large(MESSAGE + b"<t:a>", b"QUJD" * 16_384),
    "text where none belongs": lambda: large(response("GetItem").partition(b"</m:Res")[0], b"x&amp;" * 10_000),
}

BUCKET = {"owner": "o", "name": "n"}


def _config(**mailboxes: object) -> bytes:
    login = {"host": "h", "auth_type": "ntlm", "auth_user": "u", "auth_password": "p"}
    return json.dumps(login | {"mailboxes": {f"{name}@b.c": entry for name, entry in mailboxes.items()}}).encode()


def _many(count: int, entry: object) -> dict[str, object]:
    return {f"a{number}": entry for number in range(count)}


CONFIGS: dict[str, Callable[[], bytes]] = {
    "entries that are empty": lambda: _config(**_many(80_000, {})),
    "entries that are none": lambda: _config(**_many(110_000, 0)),
    "unknown keys": lambda: _config(**_many(130, {"bucket": BUCKET} | _many(900, 1))),
    "a list of wrong folders": lambda: _config(a={"bucket": BUCKET, "folder_denylist": [0] * 240_000}),
    "a folder of wrong names": lambda: _config(a={"bucket": BUCKET, "folder_denylist": [[0] * 240_000]}),
    "wrong names": lambda: _config(a={"bucket": BUCKET, "folder_denylist": [[0]] * 110_000}),
    "many lists": lambda: _config(**_many(250, {"bucket": BUCKET, "folder_denylist": [0] * 900})),
    "repeated keys": lambda: b'{"mailboxes":{' + b'"a@b.c":{"a":1,"a":1},' * 40_000 + b'"a@b.c":1}}',
    "depth": lambda: b'{"a":' * 100_000,
    "brackets": lambda: b"[" * 240_000,
    "a long key": lambda: _config(**{"a" * 1_900_000: 1}),
    "a long value": lambda: b'{"host": "' + b"x" * 1_900_000 + b'"}',
    "digits": lambda: b'{"port": ' + b"9" * 1_900_000 + b"}",
    "bytes": lambda: bytes(range(256)) * 8000,
    "24,000 mailboxes": lambda: _config(**_many(24_000, {"bucket": BUCKET})),
}

_DEEP = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(60))
_MIXED = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
MESSAGES: dict[str, Callable[[], bytes]] = {
    "open quotes": lambda: (b"From: \xe9" + b'"\\' * 15_000 + b"\r\n") * 9 + b"\r\n\xff",
    "quotes": lambda: (b"From: \xe9" + b'"' * 30_000 + b"\r\n") * 9 + b"\r\n\xff",
    "parameters": lambda: (b"Content-Type: \xe9" + b';a="\\' * 6000 + b"\r\n") * 9 + b"\r\n\xff",
    "fields": lambda: b"a: \xe9\r\n" * 40_000 + b"\r\n\xff",
    "folds": lambda: b"Subject: \xe9" + b"\r\n x" * 60_000 + b"\r\n\r\n\xff",
    "parts": lambda: _MIXED + b"--b\r\n\r\n\xff\r\n" * 20_000,
    "parts in parts": lambda: _DEEP + b"\r\n" + b"\xff--b\r\n" * 50_000,
    "one boundary for all": lambda: (_MIXED + b"--b\r\n") * 60 + b"\r\n" + b"\xff\r\n--b\r\n" * 20_000,
    "boundaries of 8 bits": lambda: _MIXED.replace(b"b\r", b"\xff\r") + b"--\xff\r\n\r\n\xff\r\n" * 20_000,
    "nearly boundaries": lambda: _MIXED + b"--b\r\n\xff" + (b"\r\n--b" + b" " * 60_000 + b"x") * 17,
    "one line": lambda: b"\r\n\xff" + b"-" * _MB,
    "carriage returns": lambda: b"\r" * _MB + b"\xff",
    "nothing": lambda: b"\0" * _MB + b"\xff",
    "signs": lambda: b"Content-Transfer-Encoding: quoted-printable\r\n\r\n\xff" + b"=" * _MB,
}


def _jobs() -> Iterator[tuple[str, Callable[[], Callable[[], int]]]]:
    """Yield each job with what prepares it: an input that has to be there first is no cost of reading it."""
    for name, pieces in ANSWERS.items():
        yield f"answer: {name}", partial(_answer_job, pieces)
    for name, make in CONFIGS.items():
        yield f"config: {name}", partial(_data_job, config, make)
    for name, make in MESSAGES.items():
        yield f"message: {name}", partial(_data_job, message, make)


def _answer_job(pieces: Callable[[], Iterator[bytes]]) -> Callable[[], int]:
    return lambda: answer(pieces())


def _data_job(read: Callable[[bytes], int], make: Callable[[], bytes]) -> Callable[[], int]:
    return partial(read, make())


def _in_a_process_of_its_own(prepare: Callable[[], Callable[[], int]]) -> dict[str, float]:
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        job = prepare()
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from now on
        before = _memory("VmHWM")
        begun = time.process_time()
        taken = job()
        cost = {
            "memory_mb": (_memory("VmHWM") - before) / _MB,
            "seconds": time.process_time() - begun,
            "taken_mb": taken / _MB,
        }
        os.write(there, json.dumps(cost).encode())
        os._exit(0)
    os.close(there)
    with os.fdopen(here, "rb") as result:
        said = result.read()
    os.waitpid(child, 0)
    return dict(json.loads(said))


def _memory(name: str) -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Print what each costs, as JSON with `--json`."""
    # Warm: what is loaded once is no input's cost.
    config(_config(a={"bucket": BUCKET}))
    message(b"Subject: \xe9\r\n\r\n\xff" + b"x" * 100_000)
    answer(iter([OPEN]))
    costs = {name: _in_a_process_of_its_own(prepare) for name, prepare in _jobs()}
    if "--json" in sys.argv:
        sys.stdout.write(json.dumps(costs))
        return
    for name, cost in costs.items():
        sys.stdout.write("{:45} {taken_mb:7.1f} MB taken, {memory_mb:6.1f} MB, {seconds:6.2f} s\n".format(name, **cost))


if __name__ == "__main__":
    main()

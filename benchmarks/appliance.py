"""The real command as a process of its own, as the image runs it, and what the system tells of it while it works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.process import open_descriptors, peak_bytes, processor_seconds, resident_bytes
from benchmarks.servers import BUCKET, OWNER, PASSWORD, TOKEN, USER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from benchmarks.servers import Load, Servers

COMMAND = (
    sys.executable,
    "-c",
    "import sys; sys.modules['rich'] = None; from ews_sync.cli import main; sys.exit(main())",
)
"""`reinfer-ews` as the image has it: without what only development needs, and structlog would load."""
_SAMPLE = 0.05
_ASK_EVERY = 0.25
_LOOK = 0.005
"""Seconds between two looks where a moment is to be caught: small against the second that a run takes."""

AS_THE_IMAGE: Mapping[str, str] = {"MALLOC_ARENA_MAX": "2", "PYTHONUNBUFFERED": "1"}
"""What the image sets of what matters for memory."""
WITHOUT_PAUSES: Mapping[str, object] = {"poll_frequency": 1, "poll_message_sleep": 0}
"""Options of the config: between two rounds, of so many emails at most, nothing would be measured."""
_NOTHING: Mapping[str, object] = {}


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment of a process: the time (s, monotonic), and the processor time that it had had by then (s)."""

    at: float
    processor: float


@dataclass(slots=True)
class Appliance:
    """A running command. Sizes are in bytes; `resident` are samples: how many emails were done, and what it took."""

    process: subprocess.Popen[bytes]
    log: Path
    address: str = ""
    done: int = 0
    dead_letters: int = 0
    descriptors: int = 0
    resident: list[tuple[int, int]] = field(default_factory=list)

    @property
    def peak(self) -> int:
        """The highest resident set so far."""
        return peak_bytes(self.process.pid)

    @property
    def processor(self) -> float:
        """The processor time in seconds that it has had."""
        return processor_seconds(self.process.pid)

    def wait_until_listening(self, limit: float) -> None:
        """Wait until it answers. Raises `SystemExit` when it does not."""
        end = time.monotonic() + limit
        while not self.address:
            self._must_live(end)
            lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
            self.address = next((str(line["listening"]) for line in lines if "listening" in line), "")
            time.sleep(_LOOK)

    def wait_until_ready(self, limit: float) -> None:
        """Wait until it says that it does its work (/readyz). Raises `SystemExit` when it does not."""
        self.wait_until_listening(limit)
        end = time.monotonic() + limit
        while not self._is_ready():
            self._must_live(end)
            time.sleep(_LOOK)

    def wait_until_done(self, emails: int, limit: float) -> None:
        """Wait until so many emails are stored or dead letters, sampling. Raises `SystemExit` when they never are."""
        end = time.monotonic() + limit
        ask_at = 0.0
        while self.done < emails:
            self._must_live(end)
            time.sleep(_SAMPLE)
            if time.monotonic() >= ask_at:
                ask_at = time.monotonic() + _ASK_EVERY
                self._ask()
            self.sample()

    def wait_until_stored(self, emails: int, seems_stored: Callable[[], bool], limit: float) -> Moment:
        """Wait until so many emails are stored, looking at what costs it nothing; give the moment.

        It is asked itself only once `seems_stored`, as each answer takes its time from the mail. Raises `SystemExit`
        when they never are stored, or one is given up.
        """
        end = time.monotonic() + limit
        while True:
            self._must_live(end)
            time.sleep(_LOOK)
            if seems_stored():
                moment = self.moment()
                self._ask()
                if self.dead_letters:
                    raise SystemExit(f"{self.dead_letters} emails became dead letters:\n{self.tail()}")
                if self.done >= emails:
                    return moment

    def moment(self) -> Moment:
        """Tell the time, and what it has had."""
        return Moment(time.monotonic(), self.processor)

    def sample(self) -> None:
        """Look once at what it takes."""
        self.resident.append((self.done, resident_bytes(self.process.pid)))
        self.descriptors = max(self.descriptors, open_descriptors(self.process.pid))

    def tail(self) -> str:
        """Give the end of what it has logged."""
        return self.log.read_text()[-3000:]

    def _is_ready(self) -> bool:
        with suppress(urllib.error.HTTPError), urllib.request.urlopen(f"{self.address}/readyz") as answer:
            return bool(answer.status == 200)
        return False

    def _ask(self) -> None:
        with urllib.request.urlopen(f"{self.address}/status?format=json") as answer:
            mailboxes = json.load(answer)["mailboxes"]
        self.dead_letters = sum(mailbox["dead_letters"] for mailbox in mailboxes)
        self.done = sum(mailbox["stored"] for mailbox in mailboxes) + self.dead_letters

    def _must_live(self, end: float) -> None:
        if self.process.poll() is not None:
            raise SystemExit(f"the appliance ended by itself:\n{self.tail()}")
        if time.monotonic() > end:
            raise SystemExit(f"only {self.done} emails were stored in time:\n{self.tail()}")


def appliance(  # noqa: PLR0913 - what differs from run to run
    load: Load,
    sink: str,
    servers: Servers,
    directory: Path,
    variables: Mapping[str, str] = AS_THE_IMAGE,
    *,
    bucket: str = BUCKET,
) -> AbstractContextManager[Appliance]:
    """Run the command while the block runs. `sink` is "platform", or a format of local files, in `directory`/files."""
    config = config_for(servers.exchange, load.addresses(), bucket=bucket, options=WITHOUT_PAUSES)
    if sink != "platform":
        return launched(config, into_files(directory, sink), directory, variables)
    arguments = ("--reinfer-api-endpoint", servers.platform)
    return launched(config, arguments, directory, {**variables, "REINFER_API_TOKEN": TOKEN})


def config_for(
    endpoint: str,
    addresses: Iterable[str],
    *,
    bucket: str = BUCKET,
    options: Mapping[str, object] = _NOTHING,
    of_each: Mapping[str, object] = _NOTHING,
) -> dict[str, object]:
    """Give a config for a mail server of a benchmark; all mailboxes go into one bucket.

    `options` are what else stands at its top, and `of_each` what else each mailbox has.
    """
    return {
        "ews_endpoint": endpoint,
        "auth_type": "basic",
        "auth_user": USER,
        "auth_password": PASSWORD,
        "access_type": "impersonation",
        **options,
        "mailboxes": {address: {"bucket": {"owner": OWNER, "name": bucket}, **of_each} for address in addresses},
    }


def into_files(directory: Path, form: str = "jsonl") -> tuple[str, ...]:
    """Give the arguments with which the mail goes into `directory`/files, in a format of local files."""
    return ("--local-files-prefix", str(directory / "files"), "--local-files-format", form)


@contextmanager
def launched(
    config: Mapping[str, object],
    arguments: Sequence[str],
    directory: Path,
    variables: Mapping[str, str] = AS_THE_IMAGE,
) -> Iterator[Appliance]:
    """Run the command while the block runs, on a port that is free; then it is told to stop.

    Of this process's environment it gets what is neither its own nor the allocator's: that is in `variables`. Its
    config and its log are files in `directory`.
    """
    path, log = directory / "config.json", directory / "log"
    path.write_text(json.dumps(config))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("REINFER", "MALLOC"))}
    environment |= {"REINFER_EWS_CONFIG": str(path), **variables}
    command = (*COMMAND, "--bind", "127.0.0.1:0", *arguments)
    with log.open("w") as out, subprocess.Popen(command, env=environment, stderr=out) as process:
        try:
            yield Appliance(process, log)
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(40)
            process.kill()

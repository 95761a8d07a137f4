"""`reinfer-ews demo`.

The appliance against a simulated Exchange server, with nothing to set up and nothing to break.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import shutil
import sys
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

import uvloop

from ews_sync.app import Appliance, run_until_signalled
from ews_sync.clock import SystemClock
from ews_sync.errors import ConfigurationError
from ews_sync.server.report import Moment, as_text
from ews_sync.settings.load import settings_from
from ews_sync.simulator.access import Account
from ews_sync.simulator.life import live
from ews_sync.simulator.mail import MailFactory, populate
from ews_sync.simulator.platform.access import Token
from ews_sync.simulator.platform.server import PlatformServer
from ews_sync.simulator.platform.store import PlatformStore
from ews_sync.simulator.server import ExchangeServer
from ews_sync.simulator.store import Exchange
from ews_sync.telemetry.logging import configure_logging
from ews_sync.telemetry.redaction import Redactor
from ews_sync.terminal import say, write

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from ews_sync.settings.demo import DemoOptions
    from ews_sync.settings.values import Settings

_USER = "svc-ews@demo.example"
_PASSWORD = "swordfish"  # noqa: S105 - of a server that exists only inside this process
_TOKEN = "open-sesame"  # noqa: S105 - likewise
_OWNER, _BUCKET = "demo", "mail"
_MARKER = ".ews-sync-demo"
_PLATFORM_FILE = "platform.sqlite"
_DEAD_LETTERS = "dead-letters"
_NAMES = ("claims", "service", "underwriting", "payments", "complaints", "legal", "broker-desk", "renewals")
_TERMINAL_EVERY = 0.5
_PLAIN_EVERY = 5.0


def demo(options: DemoOptions) -> int:
    """Run the demo until Ctrl-C; gives the exit code.

    Raises `ConfigurationError` when the directory holds something else.
    """
    directory = options.directory.resolve()
    with _room(directory), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(options, directory))


@contextmanager
def _room(directory: Path) -> Iterator[None]:
    """Have the directory to oneself, and empty it of an earlier demo's mail.

    The simulated server begins anew each time, and knows nothing of the last one.
    """
    marker = directory / _MARKER
    if directory.exists() and any(directory.iterdir()) and not marker.exists():
        raise ConfigurationError(
            (f"--directory: {directory} holds files that are not a demo's; name one that is empty or not there yet",)
        )
    directory.mkdir(parents=True, exist_ok=True)
    with marker.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(
                (f"--directory: a demo is running in {directory} already; stop it, or name another directory",)
            ) from error
        for name in ("data", "state", "config", _DEAD_LETTERS):
            shutil.rmtree(directory / name, ignore_errors=True)
        for path in directory.glob(f"{_PLATFORM_FILE}*"):
            path.unlink()
        yield


async def _run(options: DemoOptions, directory: Path) -> int:
    exchange = Exchange()
    addresses = [_address(number) for number in range(options.mailboxes)]
    for number, address in enumerate(addresses):
        populate(exchange.create_mailbox(address), options.emails, factory=MailFactory(number))
    account = Account(_USER, _PASSWORD, may_impersonate=True)
    async with AsyncExitStack() as stack:
        log = stack.enter_context((directory / "ews-sync.log").open("w", encoding="utf-8"))
        server = await stack.enter_async_context(ExchangeServer(exchange, accounts=[account]))
        place = await _place(options, directory, stack)
        settings = _settings(options, directory, server.url, addresses, place)
        configure_logging(options.debug_level, stream=log, redactor=Redactor.of(settings))
        appliance = Appliance(settings, SystemClock())
        arrivals = asyncio.create_task(_arrive(exchange, options.rate_per_minute))
        display = asyncio.create_task(_display(appliance, server.url, directory, place, sys.stdout))
        try:
            await run_until_signalled(appliance)
        finally:
            for task in (arrivals, display):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
    stored = sum(mailbox.stored for mailbox in appliance.status.mailboxes.values())
    say(sys.stdout, "", f"Stopped. {stored:,} emails were stored.", *place.afterwards)
    return 0


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the demo's mail goes: what the command is told for it, and what people are told, now and afterwards."""

    arguments: Mapping[str, str]
    environ: Mapping[str, str]
    kind: str
    now: tuple[str, ...]
    afterwards: tuple[str, ...]


async def _place(options: DemoOptions, directory: Path, stack: AsyncExitStack) -> _Place:
    if options.platform:
        return await _platform(directory, stack)
    return _Place(
        arguments={"local_files_prefix": str(directory), "local_files_format": str(options.local_files_format)},
        environ={},
        kind="files",
        now=(f"  mail      {directory / 'data'}",),
        afterwards=(f"  mail         {directory / 'data'}", f"  checkpoints  {directory / 'state'}"),
    )


async def _platform(directory: Path, stack: AsyncExitStack) -> _Place:
    """Start a stand-in platform, which keeps what it is given in one file."""
    path = directory / _PLATFORM_FILE
    store = stack.enter_context(PlatformStore(path))
    store.create_bucket(_OWNER, _BUCKET)
    server = await stack.enter_async_context(PlatformServer(store, [Token(_TOKEN)]))
    bucket = f"{server.url}_private/buckets/{_OWNER}/{_BUCKET}"
    curl = f"curl -sH 'Authorization: Bearer {_TOKEN}'"
    return _Place(
        arguments={"reinfer_api_endpoint": server.url, "dead_letter_dir": str(directory / _DEAD_LETTERS)},
        environ={"REINFER_API_TOKEN": _TOKEN},
        kind="the buckets of a stand-in platform",
        now=(
            f"  platform  {server.url} (token {_TOKEN}, bucket {_OWNER}/{_BUCKET})",
            f"  mail      {curl} -H 'Content-Type: application/json' -d '{{\"limit\": 1}}' {bucket}/emails",
            f"  or        re --endpoint {server.root} --token {_TOKEN} get emails {_OWNER}/{_BUCKET}",
        ),
        afterwards=(f"  mail and sync states  {path} (SQLite)",),
    )


async def _arrive(exchange: Exchange, rate_per_minute: float) -> None:
    if rate_per_minute > 0:
        await live(exchange, rate_per_minute=rate_per_minute)


def _address(number: int) -> str:
    name = _NAMES[number % len(_NAMES)]
    return f"{name}{number // len(_NAMES) + 1 if number >= len(_NAMES) else ''}@demo.example"


def _settings(options: DemoOptions, directory: Path, url: str, addresses: list[str], place: _Place) -> Settings:
    """Write the config file that a user would write, and load it."""
    config = {
        "ews_endpoint": url,
        "auth_type": "basic",
        "auth_user": _USER,
        "auth_password": _PASSWORD,
        "access_type": "impersonation",
        "poll_frequency": 2,
        "poll_message_sleep": 0,
        "mailboxes": {
            address: {"bucket": {"owner": _OWNER, "name": _BUCKET}, "start_from": "bucket"} for address in addresses
        },
    }
    path = directory / "config" / "demo" / "appliance.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    arguments = {"bind": str(options.bind), "debug_level": str(options.debug_level), **place.arguments}
    return settings_from(config, arguments, place.environ)


async def _display(appliance: Appliance, url: str, directory: Path, place: _Place, stream: TextIO) -> None:
    """Show how far it is: a table that is drawn anew on a terminal, plain lines elsewhere."""
    await appliance.listening.wait()
    say(
        stream,
        f"A demo: a simulated Exchange server, and the appliance that keeps its mail in step with {place.kind}.",
        f"  Exchange  {url} (user {_USER}, password {_PASSWORD})",
        f"  status    http://{appliance.server.address}/",
        *place.now,
        f"  config    {directory / 'config' / 'demo' / 'appliance.json'}",
        f"  log       {directory / 'ews-sync.log'}",
        "Ctrl-C stops it.",
        "",
    )
    clock = SystemClock()
    drawn = 0
    heard = True
    while heard:
        terminal = stream.isatty()
        if terminal:
            lines = as_text(appliance.status, Moment(clock.now(), clock.monotonic())).splitlines()
            width = shutil.get_terminal_size().columns
            up = f"\x1b[{drawn}F\x1b[J" if drawn else ""
            heard = write(stream, up + "".join(f"{line[: width - 1]}\n" for line in lines))
            drawn = len(lines)
        else:
            heard = say(stream, *_plain(appliance))
        await clock.sleep(_TERMINAL_EVERY if terminal else _PLAIN_EVERY)
    # Whoever watched is gone: nobody would ever press Ctrl-C.
    appliance.stop()


def _plain(appliance: Appliance) -> list[str]:
    clock = SystemClock()
    lines = []
    for mailbox in appliance.status.mailboxes.values():
        last = f"{mailbox.last_stored_at:%H:%M:%S}" if mailbox.last_stored_at else "none yet"
        trouble = f"; {mailbox.failure.reason}" if mailbox.failure is not None else ""
        rate = mailbox.rate.per_second(clock.monotonic())
        lines.append(
            f"{mailbox.address}: {mailbox.phase}, {len(mailbox.folders)} folders, "
            f"{mailbox.done}/{mailbox.total} caught up, {mailbox.stored} stored, {rate:.1f}/s, last {last}{trouble}"
        )
    return lines

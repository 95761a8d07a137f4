"""`reinfer-ews check`: try everything once, change nothing, and say per mailbox what is fine and what to do."""

from __future__ import annotations

import asyncio
import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvloop

from ews_sync.assembly import open_sink, open_source, own_mailboxes, warnings_of
from ews_sync.clock import SystemClock
from ews_sync.errors import AuthenticationError, EwsSyncError, Scope
from ews_sync.remote_config import config_loader
from ews_sync.server.report import shown
from ews_sync.settings.values import ConfigFile, Settings
from ews_sync.telemetry.health import Health
from ews_sync.telemetry.logging import configure_logging
from ews_sync.telemetry.redaction import Redactor
from ews_sync.telemetry.status import ShardNote
from ews_sync.terminal import write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ews_sync.model import Folder, Mailbox, Sink
    from ews_sync.remote_config import ReadConfig
    from ews_sync.settings.values import RunOptions
    from ews_sync.sources.ews.source import EwsSource

_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found about one mailbox: its folders, and what is wrong with reading or storing it."""

    mailbox: Mailbox
    folders: Sequence[Folder] = ()
    reading: EwsSyncError | None = None
    storing: EwsSyncError | None = None

    @property
    def fine(self) -> bool:
        """Whether nothing is wrong."""
        return self.reading is None and self.storing is None


def check(start: RunOptions, read: ReadConfig) -> int:
    """Check the config's mailboxes and print a table; gives 0 when all is fine, else 1.

    `start` are `Settings` where there is a config already; else it is fetched, and `read` checks it. Raises the
    `EwsSyncError` that says why there is no config.
    """
    redactor = Redactor.of(start)
    configure_logging(start.debug_level, stream=sys.stderr, redactor=redactor)
    if start.debug_level < 2:
        # The table says it all, and better.
        logging.getLogger("ews_sync").setLevel(logging.CRITICAL)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        settings = start if isinstance(start, Settings) else runner.run(_fetched(start, read))
        redactor.register(settings)
        findings = runner.run(find_out(settings))
    write(sys.stdout, render(settings, findings))
    return 0 if all(finding.fine for finding in findings) else 1


async def _fetched(options: RunOptions, read: ReadConfig) -> Settings:
    async with config_loader(options, read, SystemClock()) as load:
        return await load()


async def find_out(settings: Settings) -> list[Finding]:
    """Try each mailbox: list its folders, and have the sink prove that it could store its mail."""
    source = open_source(settings, SystemClock(), patient=False)
    sink, _ = open_sink(settings, SystemClock(), Health(), lambda _: None, patient=False)
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(mailbox: Mailbox) -> Finding:
        async with places:
            return await _try(mailbox, source, sink)

    try:
        mailboxes = list(own_mailboxes(settings))
        # The first one alone: a wrong password must be tried once, not once for every mailbox.
        findings = [await one(mailbox) for mailbox in mailboxes[:1]]
        first = findings[0].reading if findings else None
        if isinstance(first, AuthenticationError) and first.scope is Scope.PROCESS:
            # It names the first mailbox, but holds for the account, whichever mailbox it opens.
            refused = AuthenticationError("not tried: the login was refused", hint=first.hint)
            return findings + [Finding(mailbox, reading=refused) for mailbox in mailboxes[1:]]
        return findings + list(await asyncio.gather(*(one(mailbox) for mailbox in mailboxes[1:])))
    finally:
        await source.aclose()
        await sink.aclose()


async def _try(mailbox: Mailbox, source: EwsSource, sink: Sink) -> Finding:
    folders: Sequence[Folder] = ()
    reading = storing = None
    try:
        folders = await source.folders(mailbox)
    except EwsSyncError as error:
        reading = error
    try:
        await sink.check(mailbox)
    except EwsSyncError as error:
        storing = error
    return Finding(mailbox, folders, reading, storing)


def render(settings: Settings, findings: Sequence[Finding]) -> str:
    """Make the table."""
    exchange = settings.exchange
    lines = [
        f"config    {shown(_config(settings))}",
        f"exchange  {exchange.endpoint} ({exchange.auth.kind}, {exchange.access_type})",
        f"mail to   {settings.destination}",
    ]
    if settings.shard is not None:
        number, total, name = settings.shard.number, settings.shard.total, settings.shard.name
        lines.append(shown(str(ShardNote(name, number, total, len(findings), len(settings.mailboxes)))))
    lines += [f"warning   {warning}" for warning in warnings_of(settings)]
    for finding in findings:
        lines += ["", *_section(finding)]
    bad = sum(not finding.fine for finding in findings)
    mailboxes = "1 mailbox" if len(findings) == 1 else f"{len(findings)} mailboxes"
    lines += ["", f"{mailboxes}, {bad} of them FAILED: see above what to do" if bad else f"{mailboxes}, all fine"]
    return "\n".join(lines) + "\n"


def _config(settings: Settings) -> str:
    place = settings.config_place
    fine = f"{settings.config_source}: fine"
    if isinstance(place, ConfigFile) and place.instead_of is not None:
        return f"{fine} (the {place.instead_of} is not used: REINFER_EWS_CONFIG wins)"
    return fine


def _section(finding: Finding) -> list[str]:
    mailbox = finding.mailbox
    lines = [f"{'ok    ' if finding.fine else 'FAILED'}  {shown(mailbox.address)}  -> {shown(str(mailbox.bucket))}"]
    for what, error in (("reading", finding.reading), ("storing", finding.storing)):
        if error is not None:
            lines.append(f"    {what}: {shown(error.summary)}" + (f" ({error.code})" if error.code else ""))
            lines.append(f"      what to do: {shown(error.hint) or 'see the summary above, then try again'}")
            if error.request_id and error.code:
                lines.append(f"      the server's logs know the request as {error.request_id}")
    wanted = [folder for folder in finding.folders if mailbox.wants(folder.path)]
    width = max((len(shown("/".join(folder.path))) for folder in finding.folders), default=0)
    for folder in finding.folders:
        note = "" if folder in wanted else "  (left out by the allow or deny list)"
        lines.append(f"    {shown('/'.join(folder.path)).ljust(width)}  {folder.total:>9,}{note}")
    if finding.folders:
        lines.append(f"    {len(wanted)} folders with {sum(folder.total for folder in wanted):,} items to keep in step")
    if finding.folders and not wanted:
        lines.append("      what to do: folder_allowlist names no folder that exists, so nothing would be synced")
    return lines

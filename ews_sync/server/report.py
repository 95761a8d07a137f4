"""`Status` as JSON for machines and as a table for people. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from ews_sync.telemetry.status import Phase

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ews_sync.telemetry.status import DeadLetterNote, Failure, FolderProgress, MailboxProgress, Rate, Status

SCHEMA_VERSION = 2


@dataclass(frozen=True, slots=True)
class Moment:
    """When a report is made: on the wall, and on the clock that never goes back (seconds)."""

    wall: datetime
    monotonic: float


class Folders(StrEnum):
    """Which folders of each mailbox a report has."""

    ALL = "all"
    FAILING = "failing"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a report is about: one mailbox, or (None) all of them, and which of their folders."""

    mailbox: str | None = None
    folders: Folders = Folders.ALL


EVERYTHING = Wanted()


def as_json(status: Status, moment: Moment, wanted: Wanted = EVERYTHING) -> dict[str, Any]:
    """Give the status as what JSON can say. Field names are stable.

    `schema_version` grows when one changes its meaning.
    """
    return _whole(status, moment) | {
        "mailboxes": [_mailbox(mailbox, status, moment, wanted.folders) for mailbox in _chosen(status, wanted)]
    }


def json_pieces(status: Status, moment: Moment, wanted: Wanted = EVERYTHING) -> Iterator[str]:
    """Give the text of `as_json` in pieces, one for each mailbox: there may be thousands, each with many folders."""
    yield json.dumps(_whole(status, moment), indent=2).removesuffix("\n}") + ',\n  "mailboxes": ['
    between = "\n    "
    for mailbox in _chosen(status, wanted):
        shown_as = _mailbox(mailbox, status, moment, wanted.folders)
        yield between + json.dumps(shown_as, indent=2).replace("\n", "\n    ")
        between = ",\n    "
    yield "\n  ]\n}\n"


def knows(status: Status, mailbox: str) -> bool:
    """Tell whether there is a mailbox of that address."""
    return bool(_chosen(status, Wanted(mailbox)))


def _chosen(status: Status, wanted: Wanted) -> list[MailboxProgress]:
    mailboxes = list(status.mailboxes.values())
    if wanted.mailbox is None:
        return mailboxes
    return [mailbox for mailbox in mailboxes if mailbox.address.casefold() == wanted.mailbox.casefold()]


def _whole(status: Status, moment: Moment) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "version": status.version,
        "started_at": _time(status.started_at),
        "now": _time(moment.wall),
        "ready": status.ready,
        "stopping": status.stopping,
        "config_source": status.config_source,
        "config_loaded_at": _time(status.config_loaded_at),
        "config_checked_at": _time(status.config_checked_at),
        "config_failure": _failure(status.config_failure),
        "shard": None if status.shard is None else asdict(status.shard),
        "sink": status.sink,
        "warnings": list(status.warnings),
        "failure": _failure(status.failure),
        "source_failure": _failure(status.source_failure),
        "sink_failure": _failure(status.sink_failure),
        "stuck": list(status.health.troubles),
        "dead_letters": [_dead_letter(letter) for letter in reversed(status.dead_letters)],
    }


def _dead_letter(letter: DeadLetterNote) -> dict[str, Any]:
    return {
        "mailbox": letter.mailbox,
        "folder": list(letter.folder),
        "email_id": letter.email_id,
        "item_id": letter.item_id,
        "received": _time(letter.received),
        "code": letter.code or None,
        "reason": letter.reason,
        "recorded_at": _time(letter.recorded_at),
    }


def _mailbox(mailbox: MailboxProgress, status: Status, moment: Moment, folders: Folders) -> dict[str, Any]:
    return {
        "mailbox": mailbox.address,
        "bucket": mailbox.bucket,
        "phase": mailbox.phase,
        **_pace(mailbox.done, mailbox.total, mailbox.rate, moment),
        "stored": mailbox.stored,
        "stored_bytes": mailbox.stored_bytes,
        "dead_letters": mailbox.dead_letters,
        "newest_received": _time(mailbox.newest_received),
        "lag_seconds": _lag(mailbox.newest_received, moment),
        "last_stored_at": _time(mailbox.last_stored_at),
        "last_success_at": _time(mailbox.last_success_at),
        "throttled_for_seconds": round(status.traffic.wait_for(mailbox.address, moment.monotonic), 1),
        "rounds": mailbox.rounds,
        "failure": _failure(mailbox.failure),
        "folders": [_folder(folder, moment) for folder in _shown_folders(mailbox, folders)],
    }


def _shown_folders(mailbox: MailboxProgress, which: Folders) -> list[FolderProgress]:
    if which is Folders.NONE:
        return []
    found = [folder for folder in mailbox.folders.values() if which is Folders.ALL or folder.failure is not None]
    return sorted(found, key=lambda folder: folder.path)


def _folder(folder: FolderProgress, moment: Moment) -> dict[str, Any]:
    return {
        "path": list(folder.path),
        "phase": Phase.FAILED if folder.failure is not None else folder.phase,
        "items": folder.items,
        "marked": folder.marked,
        **_pace(folder.done, folder.total, folder.rate, moment),
        "stored": folder.stored,
        "newest_received": _time(folder.newest_received),
        "lag_seconds": _lag(folder.newest_received, moment),
        "synced_until": _time(folder.synced_until),
        "last_synced_at": _time(folder.last_synced_at),
        "failure": _failure(folder.failure),
    }


def _pace(done: int, total: int, rate: Rate | None, moment: Moment) -> dict[str, Any]:
    """Say how far a backfill is, how fast mail is being stored, and when it would be done at this pace."""
    per_second = 0.0 if rate is None else rate.per_second(moment.monotonic)
    left = total - done
    return {
        "done": done,
        "total": total,
        "rate_per_second": round(per_second, 2),
        "eta_seconds": round(left / per_second) if left > 0 and per_second > 0 else None,
    }


def _lag(newest_received: datetime | None, moment: Moment) -> int | None:
    """Give how long ago the newest email stored was received, in seconds."""
    return None if newest_received is None else max(0, round((moment.wall - newest_received).total_seconds()))


def _failure(failure: Failure | None) -> dict[str, Any] | None:
    if failure is None:
        return None
    return {
        "reason": failure.reason,
        "hint": failure.hint or None,
        "code": failure.code or None,
        "since": _time(failure.since),
        "needs_operator": failure.needs_operator,
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


# --- For people ------------------------------------------------------------------------------------------------------


def as_text(status: Status, moment: Moment, mailbox: str | None = None) -> str:
    """Give the status as a table: a line for each mailbox, or for each folder of one, and each thing that is wrong."""
    state = "stopping" if status.stopping else "running" if status.ready else "not ready"
    lines = [f"ews-sync {status.version}: {state}, into {status.sink}", _config(status, moment)]
    if status.shard is not None:
        lines.append(shown(str(status.shard)))
    chosen = _chosen(status, Wanted(mailbox))
    rows: list[tuple[str, ...]] = [
        ("MAILBOX", "STATE", "FOLDERS", "CAUGHT UP", "STORED", "RATE", "LAST EMAIL", "LAG", "LAST LOOK")
    ]
    rows += [_row(one, status, moment) for one in chosen]
    lines += ["", *_table(rows)]
    if mailbox is not None and chosen:
        lines += ["", *_table(_folder_rows(chosen[0], moment))]
    notes = [*_problems(status), *_dead_letters(status), *(f"! {warning}" for warning in status.warnings)]
    lines += ["", *notes] if notes else []
    return "\n".join(lines) + "\n"


def _config(status: Status, moment: Moment) -> str:
    if status.config_missing:
        return shown(f"{status.config_source}, not loaded yet")
    loaded = f", loaded {_ago(status.config_loaded_at, moment.wall)}" if status.config_loaded_at else ""
    later = status.config_checked_at is not None and status.config_checked_at != status.config_loaded_at
    checked = f", found unchanged {_ago(status.config_checked_at, moment.wall)}" if later else ""
    return shown(f"{status.config_source}{loaded}{checked}")


def _dead_letters(status: Status) -> list[str]:
    if not status.dead_letters:
        return []
    count = status.dead_letters_noted
    emails = "1 email" if count == 1 else f"{count:,} emails"
    last = status.dead_letters[-1]
    return [
        shown(
            f"! {emails} could not be stored since the start; the last of {last.mailbox} in {'/'.join(last.folder)}: "
            f"{last.reason} - all are listed under dead_letters in /status"
            + (f" (the last {len(status.dead_letters)})" if count > len(status.dead_letters) else "")
        )
    ]


def _row(mailbox: MailboxProgress, status: Status, moment: Moment) -> tuple[str, ...]:
    pace = _pace(mailbox.done, mailbox.total, mailbox.rate, moment)
    total, done, left = mailbox.total, mailbox.done, pace["eta_seconds"]
    share = "-" if not total else f"{done:,}/{total:,} ({100 * done // total}%)"
    dead = f" +{mailbox.dead_letters} dead" if mailbox.dead_letters else ""
    state = "FAILED" if mailbox.phase is Phase.FAILED else str(mailbox.phase)
    waits = status.traffic.wait_for(mailbox.address, moment.monotonic)
    return (
        shown(mailbox.address),
        f"{state}, throttled for {_span(waits)}" if waits >= 1 else state,
        str(len(mailbox.folders)),
        share if left is None else f"{share}, {_span(left)} left",
        f"{mailbox.stored:,}{dead}",
        f"{mailbox.rate.per_second(moment.monotonic):.1f}/s",
        _ago(mailbox.last_stored_at, moment.wall),
        _lag_words(mailbox.newest_received, moment),
        _ago(mailbox.last_success_at, moment.wall),
    )


def _folder_rows(mailbox: MailboxProgress, moment: Moment) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("FOLDER", "STATE", "CAUGHT UP", "STORED", "SYNCED UNTIL", "LAG", "LAST LOOK")]
    for folder in _shown_folders(mailbox, Folders.ALL):
        left = _pace(folder.done, folder.total, folder.rate, moment)["eta_seconds"]
        share = "-" if not folder.total else f"{folder.done:,}/{folder.total:,}"
        rows.append(
            (
                shown("/".join(folder.path)),
                "FAILED" if folder.failure is not None else str(folder.phase),
                share if left is None else f"{share}, {_span(left)} left",
                f"{folder.stored:,}",
                _time(folder.synced_until) or "-",
                _lag_words(folder.newest_received, moment),
                _ago(folder.last_synced_at, moment.wall),
            )
        )
    return rows


def _lag_words(newest_received: datetime | None, moment: Moment) -> str:
    lag = _lag(newest_received, moment)
    return "-" if lag is None else _span(lag)


def _problems(status: Status) -> list[str]:
    lines = []
    if status.config_failure is not None:
        in_force = "" if status.config_missing else "; the config from before stays in force"
        lines.append(shown(f"! {status.config_source}: {status.config_failure}{in_force}"))
    if status.failure is not None:
        lines.append(_problem("everything", status.failure))
    if status.source_failure is not None:
        lines.append(_problem("reading mail", status.source_failure))
    if status.sink_failure is not None:
        lines.append(_problem(status.sink, status.sink_failure))
    for mailbox in status.mailboxes.values():
        if mailbox.failure is not None:
            lines.append(_problem(mailbox.address, mailbox.failure))
        lines += [
            _problem(f"{mailbox.address} {'/'.join(folder.path)}", folder.failure)
            for folder in mailbox.folders.values()
            if folder.failure is not None
        ]
    lines += [shown(f"! stuck, so that /healthz fails: {what}") for what in status.health.troubles]
    return lines


def _problem(where: str, failure: Failure) -> str:
    return shown(f"! {where}: {failure}")


def shown(text: str) -> str:
    """Give a text from outside as it can be printed: a folder's name must not upset a terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _ago(moment: datetime | None, now: datetime) -> str:
    return "-" if moment is None else f"{_span((now - moment).total_seconds())} ago"


def _span(seconds: float) -> str:
    whole = max(0, int(seconds))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if whole >= size:
            return f"{whole // size} {unit}"
    return f"{whole} s"


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]

"""What `reinfer-ews demo` is told."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ews_sync.settings import options
from ews_sync.settings.directories import why_not_writable
from ews_sync.settings.environment import Choices, one_of, whole_number
from ews_sync.settings.load import parsed_bind, parsed_debug_level, parsed_format
from ews_sync.settings.problems import Problems, shown
from ews_sync.settings.values import Bind, LocalFilesFormat

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAILBOXES, _EMAILS, _DIRECTORY, _RATE, _PLATFORM = options.DEMO_ONLY


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the demo shows: how many mailboxes, emails in each at the start, and new emails a minute in all."""

    mailboxes: int = 3
    emails: int = 400
    directory: Path = Path("demo-data")
    bind: Bind = field(default_factory=Bind)
    rate_per_minute: float = 30.0
    local_files_format: LocalFilesFormat = LocalFilesFormat.EML
    debug_level: int = 1
    platform: bool = False


def demo_options(arguments: Mapping[str, str], environ: Mapping[str, str]) -> DemoOptions:
    """Check the demo's options, given as text by `Option.name`.

    Raises:
        ConfigurationError: with all problems there are, one line each.
    """
    problems = Problems()
    choices = Choices((*options.DEMO_ONLY, *options.DEMO_SHARED), arguments, environ, problems)
    mailboxes = choices.parsed(_MAILBOXES, whole_number("a whole number between 1 and 1000", 1, 1000))
    emails = choices.parsed(_EMAILS, whole_number("a whole number between 0 and 100,000", 0, 100_000))
    directory = choices.parsed(_DIRECTORY, _writable)
    rate = choices.parsed(_RATE, _rate)
    platform = choices.parsed(_PLATFORM, one_of("true", "false"))
    bind, level, file_format = parsed_bind(choices), parsed_debug_level(choices), parsed_format(choices)
    problems.raise_if_any()
    plain = DemoOptions()
    return DemoOptions(
        mailboxes=plain.mailboxes if mailboxes is None else mailboxes,
        emails=plain.emails if emails is None else emails,
        directory=directory or plain.directory,
        bind=bind,
        rate_per_minute=plain.rate_per_minute if rate is None else rate,
        local_files_format=file_format,
        debug_level=level,
        platform=platform == "true",
    )


def _writable(text: str) -> Path:
    if obstacle := why_not_writable(Path(text)):
        raise ValueError(obstacle)
    return Path(text)


def _rate(text: str) -> float:
    wrong = f"must be a number of emails a minute between 0 and 60,000, not {shown(text)}"
    try:
        rate = float(text)
    except ValueError:
        raise ValueError(wrong) from None
    if not math.isfinite(rate) or not 0 <= rate <= 60_000:
        raise ValueError(wrong)
    return rate

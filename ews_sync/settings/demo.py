"""What `reinfer-ews demo` is told."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import PlainValidator

from ews_sync.settings.option_keys import Directory, SharedKeys, Switch, read_options, whole_number
from ews_sync.settings.options import DEMO_ONLY, DEMO_SHARED
from ews_sync.settings.problems import Problems, shown
from ews_sync.settings.values import Bind, LocalFilesFormat

if TYPE_CHECKING:
    from collections.abc import Mapping


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


def _rate(text: str) -> float:
    wrong = f"must be a number of emails a minute between 0 and 60,000, not {shown(text)}"
    try:
        rate = float(text)
    except ValueError:
        raise ValueError(wrong) from None
    if not math.isfinite(rate) or not 0 <= rate <= 60_000:
        raise ValueError(wrong)
    return rate


_DEFAULTS = DemoOptions()


class DemoKeys(SharedKeys):
    """The options of `demo`."""

    mailboxes: Annotated[int, PlainValidator(whole_number("a whole number between 1 and 1000", 1, 1000))] = (
        _DEFAULTS.mailboxes
    )
    emails: Annotated[int, PlainValidator(whole_number("a whole number between 0 and 100,000", 0, 100_000))] = (
        _DEFAULTS.emails
    )
    directory: Directory = _DEFAULTS.directory
    rate: Annotated[float, PlainValidator(_rate)] = _DEFAULTS.rate_per_minute
    platform: Switch = _DEFAULTS.platform


def demo_options(arguments: Mapping[str, str], environ: Mapping[str, str]) -> DemoOptions:
    """Check the demo's options, given as text by `Option.name`.

    Raises:
        ConfigurationError: with all problems there are, one line each.
    """
    problems = Problems()
    keys, _ = read_options(DemoKeys, (*DEMO_ONLY, *DEMO_SHARED), arguments, environ, problems)
    problems.raise_if_any()
    return DemoOptions(
        mailboxes=keys.mailboxes,
        emails=keys.emails,
        directory=keys.directory,
        bind=keys.bind,
        rate_per_minute=keys.rate,
        local_files_format=keys.local_files_format,
        debug_level=keys.debug_level,
        platform=keys.platform,
    )

"""What an expression of PromQL is about, and what there is: the names and labels of the metrics that /metrics has."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from ews_sync.telemetry.metrics import Metrics
from ews_sync.telemetry.status import MailboxProgress, ShardNote, Status
from ews_sync.telemetry.traffic import Outcome
from tests.charts.programs import ALERTS, DASHBOARD

if TYPE_CHECKING:
    from collections.abc import Iterator

TARGET = frozenset({"namespace", "job", "instance"})
"""Labels that Prometheus adds to what it reads."""

_NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
_STRING = re.compile(r'"[^"]*"')
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}")
_LABELS = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_NAME = re.compile(r"\b[a-zA-Z_:][\w:]*\b(?!\s*\()")
_KEYWORDS = frozenset({"and", "or", "unless", "bool", "offset"})
_VARIABLES = {"$__rate_interval": "5m", "$__range": "1h"}


class _StoppedClock:
    def now(self) -> datetime:
        return _NOW

    def monotonic(self) -> float:
        return 1000.0

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError


def series() -> dict[str, frozenset[str]]:
    """Give the names of all series that the appliance can have, with their labels."""
    mailbox = MailboxProgress("a@example.com", "o/n", last_success_at=_NOW, last_stored_at=_NOW, newest_received=_NOW)
    status = Status("1.2.3", _NOW)
    status.mailboxes = {mailbox.address: mailbox}
    status.shard = ShardNote("ews-1", 1, 4)
    status.config_loaded_at = _NOW
    status.token_ends_at = 1600.0
    status.traffic.answered("GetItem", Outcome.OK, 0.025)
    text = Metrics(status, _StoppedClock()).text().decode()
    return {
        sample.name: frozenset(sample.labels)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def plain(expression: str) -> str:
    """Put values in the place of Grafana's variables, all but those within quotes."""
    for variable, value in _VARIABLES.items():
        expression = expression.replace(variable, value)
    return expression


def names_in(expression: str) -> set[str]:
    """Give the metrics that an expression reads."""
    text = _STRING.sub("", expression)
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", _LABELS.sub("", text))
    return set(_NAME.findall(text)) - _KEYWORDS


def labels_in(expression: str) -> Iterator[tuple[str | None, str]]:
    """Give each label that an expression names, with the metric that it selects from; None where it groups by it."""
    text = _STRING.sub("", expression)
    for metric, matchers in _SELECTOR.findall(text):
        for label in re.findall(r"\w+", matchers):
            yield metric, label
    for labels in _LABELS.findall(text):
        for label in re.findall(r"\w+", labels):
            yield None, label


def alerts() -> dict[str, str]:
    """Give the expressions of the alerts, by name."""
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def dashboard() -> dict[str, Any]:
    """Give the dashboard."""
    found: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return found


def panels() -> list[dict[str, Any]]:
    """Give the panels that show something."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> dict[str, str]:
    """Give the expressions of the dashboard, by panel and letter."""
    return {
        f"{panel['title']} {target['refId']}": plain(target["expr"])
        for panel in panels()
        for target in panel["targets"]
    }

"""Series and cases for `promtool test rules`: what Prometheus has read, minute by minute, and what it alerts about."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from tests.charts.programs import ALERTS, run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FIRST = 'namespace="mail",job="ews-sync",instance="ews-sync-0"'
SECOND = 'namespace="mail",job="ews-sync",instance="ews-sync-1"'
MAILBOX = 'mailbox="a@example.com",bucket="o/n"'
OTHER = 'mailbox="b@example.com",bucket="o/n"'
_MINUTES = 400

STILL = f"0x{_MINUTES}"
"""Values, one a minute, in promtool's notation: 0, 0, 0, …"""
ONE = f"1x{_MINUTES}"
CLOCK = f"0+60x{_MINUTES}"
"""The time of each minute: what is always of this moment."""


def until(minute: int, before: str = "1", after: str = "0") -> str:
    """Give one value before a minute, and another one from then on."""
    return f"{before}x{minute - 1} {after}x{_MINUTES - minute}"


def during(start: int, end: int, well: str = "1", wrong: str = "0") -> str:
    """Give one value from minute `start` on, until `end`; another one before and after."""
    return f"{well}x{start - 1} {wrong}x{end - start - 1} {well}x{_MINUTES - end}"


def stops(minute: int) -> str:
    """Give the time until a minute, and that same time from then on."""
    return f"0+60x{minute} {60 * minute}x{_MINUTES - minute}"


def instance(labels: str) -> dict[str, str]:
    """Give the series of an instance that is well."""
    whole = {
        "up": ONE, "ews_sync_build_info": ONE, "ews_sync_ready": ONE, "ews_sync_healthy": ONE,
        "ews_sync_source_up": ONE, "ews_sync_sink_up": ONE, "ews_sync_config_last_reload_successful": ONE,
        "ews_sync_start_time_seconds": STILL, "process_resident_memory_bytes": f"90000000x{_MINUTES}",
    }  # fmt: skip
    return {f"{name}{{{labels}}}": values for name, values in whole.items()}


def mailbox(labels: str) -> dict[str, str]:
    """Give the series of a mailbox that is well and gets mail every minute."""
    whole = {
        "up": ONE, "folders_failing": STILL, "backfilling": STILL, "backfill_done_items": STILL,
        "throttled_seconds": STILL, "dead_letters_total": STILL, "last_round_success_timestamp_seconds": CLOCK,
        "last_stored_timestamp_seconds": CLOCK, "newest_received_timestamp_seconds": CLOCK,
    }  # fmt: skip
    return {f"ews_sync_mailbox_{name}{{{labels}}}": values for name, values in whole.items()}


def well() -> dict[str, str]:
    """Give the series of two instances with a mailbox each, where nothing is wrong."""
    first, second = f"{FIRST},{MAILBOX}", f"{SECOND},{OTHER}"
    return {**instance(FIRST), **instance(SECOND), **mailbox(first), **mailbox(second)}


def of(up: str, **values: str) -> dict[str, str]:
    """Give other series of the first instance's mailbox than when all is well; named without their prefix."""
    return {f"ews_sync_mailbox_{key}{{{FIRST},{MAILBOX}}}": text for key, text in {"up": up, **values}.items()}


def at(metric: str, values: str) -> dict[str, str]:
    """Give a series of the first instance."""
    return {f"{metric}{{{FIRST}}}": values}


@dataclass(frozen=True, slots=True)
class Case:
    """What happens instead of all being well, and which alerts fire then, by minute; no others may.

    A series whose values are "" is not there. `alone`: without the series of what is well.
    """

    series: Mapping[str, str]
    alerts: Mapping[int, frozenset[str]]
    alone: bool = field(default=False, kw_only=True)

    def group(self, name: str) -> dict[str, Any]:
        """Write it as a group of promtool's."""
        series = {**({} if self.alone else well()), **self.series}
        return {
            "name": name,
            "interval": "1m",
            "input_series": [{"series": key, "values": values} for key, values in series.items() if values],
            "promql_expr_test": [
                {
                    "expr": 'group by (alertname) (ALERTS{alertstate="firing"})',
                    "eval_time": f"{minute}m",
                    "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(alerts)],
                }
                for minute, alerts in self.alerts.items()
            ],
        }


def tried(name: str, case: Case, directory: Path) -> str:
    """Have promtool try a case; gives what it finds wrong, nothing when all is as expected."""
    file = directory / "case.yaml"
    content = {"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": [case.group(name)]}
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    result = run("promtool", "test", "rules", file)
    return "" if result.returncode == 0 else result.stdout

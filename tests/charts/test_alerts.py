"""The alerts, with what makes each fire, and with what must not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.charts.programs import ALERTS, needs, run
from tests.charts.prometheus import (
    FIRST,
    ONE,
    STILL,
    Case,
    at,
    during,
    instance,
    of,
    stops,
    tried,
    until,
)

if TYPE_CHECKING:
    from pathlib import Path

NONE = frozenset[str]()


def only(*names: str) -> frozenset[str]:
    return frozenset(f"EwsSync{name}" for name in names)


GONE = "1x60 stale"
RESTART = "0x99 6000x9 6600x9 7200x280"
LONG_PAUSES = " ".join(["40x3 0x0"] * 80)
SHORT_PAUSES = " ".join(["40x1 0x27"] * 13)

CASES = {
    "all is well": Case({}, {5: NONE, 60: NONE, 200: NONE, 380: NONE}),
    "nothing is there": Case({"other": ONE}, {9: NONE, 11: only("Absent")}, alone=True),
    "one does not answer": Case(
        at("up", until(60)) | {name: "1x59 stale" for name in instance(FIRST) if not name.startswith("up")},
        {64: NONE, 66: only("Down"), 300: only("Down")},
    ),
    "the only one does not answer": Case(
        at("up", until(60)) | at("ews_sync_build_info", "1x59 stale"),
        {64: NONE, 66: only("Down"), 300: only("Down", "Absent")},
        alone=True,
    ),
    "one does not answer for a moment": Case(at("up", during(60, 64)), {62: NONE, 66: NONE, 100: NONE}),
    "one was never there": Case(
        {'up{namespace="mail",job="ews-sync",instance="ews-sync-2"}': STILL}, {4: NONE, 6: only("Down")}
    ),
    "something else is down": Case({'up{namespace="mail",job="web",instance="web-0"}': STILL}, {30: NONE}),
    "one was taken away": Case(
        dict.fromkeys((*instance(FIRST), *of("")), "1x59 stale"), {61: NONE, 70: NONE, 200: NONE}
    ),
    "stuck": Case(at("ews_sync_healthy", until(60)), {64: NONE, 66: only("Unhealthy")}),
    "the mail server is down": Case(
        at("ews_sync_source_up", until(60))
        | at("ews_sync_ready", until(60))
        | of(
            until(60),
            last_round_success_timestamp_seconds=stops(60),
            last_stored_timestamp_seconds=stops(60),
            newest_received_timestamp_seconds=stops(60),
        ),
        {69: NONE, 71: only("SourceDown"), 300: only("SourceDown")},
    ),
    "the mail server is down for a moment": Case(at("ews_sync_source_up", during(60, 69)), {68: NONE, 80: NONE}),
    "the platform is down": Case(
        at("ews_sync_sink_up", until(60))
        | at("ews_sync_ready", until(60))
        | of(until(60), last_round_success_timestamp_seconds=stops(60), last_stored_timestamp_seconds=stops(60)),
        {69: NONE, 71: only("SinkDown"), 300: only("SinkDown")},
    ),
    "not ready": Case(at("ews_sync_ready", until(60)), {74: NONE, 76: only("NotReady")}),
    "the config is wrong": Case(
        at("ews_sync_config_last_reload_successful", until(60)), {69: NONE, 71: only("ConfigReloadFailed")}
    ),
    "a token that is not renewed": Case(
        at("ews_sync_login_token_expiry_timestamp_seconds", "7200x400"),
        {112: NONE, 117: NONE, 119: only("TokenExpiring"), 200: only("TokenExpiring")},
    ),
    "a token that is renewed": Case(
        at("ews_sync_login_token_expiry_timestamp_seconds", "3600+60x400"), {50: NONE, 200: NONE}
    ),
    "three starts": Case(
        at("ews_sync_start_time_seconds", RESTART), {105: NONE, 119: NONE, 121: only("Restarting"), 190: NONE}
    ),
    "an upgrade": Case(at("ews_sync_start_time_seconds", until(100, "0", "6000")), {101: NONE, 140: NONE}),
    "too much memory": Case(
        at("process_resident_memory_bytes", until(60, "90000000", "125000000")), {74: NONE, 76: only("MemoryHigh")}
    ),
    "too much memory for a moment": Case(
        at("process_resident_memory_bytes", during(60, 70, "90000000", "125000000")), {65: NONE, 80: NONE}
    ),
    "another process with much memory": Case(
        {'process_resident_memory_bytes{job="web",instance="web-0"}': "900000000x400"}, {100: NONE}
    ),
    "a mailbox fails": Case(of(until(60)), {74: NONE, 76: only("MailboxFailed")}),
    "a mailbox fails for a moment": Case(of(during(60, 74)), {73: NONE, 90: NONE}),
    "a mailbox fails for long": Case(
        of(
            until(60),
            newest_received_timestamp_seconds=stops(60),
            last_round_success_timestamp_seconds=stops(60),
            last_stored_timestamp_seconds=stops(60),
        ),
        {76: only("MailboxFailed"), 149: only("MailboxFailed"), 152: only("MailboxFailed", "MailboxLagGrowing")},
    ),
    "a mailbox fails, but its mail goes on": Case(
        of(until(60), newest_received_timestamp_seconds="0+30x400"), {380: only("MailboxFailed")}
    ),
    "a folder fails": Case(
        of(ONE, folders_failing=until(60, "0", "2")), {89: NONE, 91: only("FolderFailed"), 380: only("FolderFailed")}
    ),
    "a folder fails for a moment": Case(of(ONE, folders_failing=during(60, 89, "0", "1")), {88: NONE, 92: NONE}),
    "a folder fails while the mail server is down": Case(
        at("ews_sync_source_up", until(60)) | of(ONE, folders_failing=until(60, "0", "1")), {300: only("SourceDown")}
    ),
    "a folder fails while the platform is down": Case(
        at("ews_sync_sink_up", until(60)) | of(ONE, folders_failing=until(60, "0", "1")), {300: only("SinkDown")}
    ),
    "nobody writes": Case(
        of(ONE, newest_received_timestamp_seconds=stops(10), last_stored_timestamp_seconds=stops(10)), {380: NONE}
    ),
    "no rounds": Case(
        of(ONE, last_round_success_timestamp_seconds=stops(60), last_stored_timestamp_seconds=stops(60)),
        {100: NONE, 103: only("MailboxStalled")},
    ),
    "never a round": Case(
        of(ONE, last_round_success_timestamp_seconds="", last_stored_timestamp_seconds=""),
        {39: NONE, 42: only("MailboxStalled")},
    ),
    "a round that takes long, with mail that comes in": Case(
        of(ONE, last_round_success_timestamp_seconds=stops(60)), {200: NONE}
    ),
    "a backfill over what is there already": Case(
        of(
            ONE,
            backfilling=ONE,
            backfill_done_items="0+10x400",
            last_round_success_timestamp_seconds=stops(1),
            last_stored_timestamp_seconds="",
            newest_received_timestamp_seconds=stops(1),
        ),
        {60: NONE, 120: NONE, 380: NONE},
    ),
    "a backfill that stands still": Case(
        of(
            ONE,
            backfilling=ONE,
            backfill_done_items="0+10x60 610x340",
            newest_received_timestamp_seconds=stops(30),
        ),
        {149: NONE, 152: only("MailboxLagGrowing")},
    ),
    "a backfill that goes on while new mail comes": Case(
        of(ONE, backfilling=ONE, backfill_done_items="0+10x400"), {380: NONE}
    ),
    "throttled for most of the time": Case(
        of(ONE, throttled_seconds=LONG_PAUSES), {44: NONE, 70: only("Throttled"), 200: only("Throttled")}
    ),
    "throttled now and then": Case(of(ONE, throttled_seconds=SHORT_PAUSES), {70: NONE, 200: NONE, 380: NONE}),
    "a dead letter": Case(
        of(ONE, dead_letters_total="3x59 4x340"),
        {59: NONE, 61: only("DeadLetters"), 110: only("DeadLetters"), 125: NONE},
    ),
    "dead letters of long ago": Case(of(ONE, dead_letters_total="7x400"), {60: NONE, 380: NONE}),
    "a restart with dead letters behind it": Case(of(ONE, dead_letters_total="7x59 0x340"), {61: NONE, 100: NONE}),
}


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


@needs("promtool")
@pytest.mark.parametrize("name", CASES)
def test_alerts_fire_when_they_should_and_only_then(name: str, tmp_path: Path) -> None:
    assert tried(name, CASES[name], tmp_path) == ""


def test_every_alert_has_a_case() -> None:
    fired = {alert for case in CASES.values() for alerts in case.alerts.values() for alert in alerts}
    assert fired == {rule["alert"] for rule in rules()}


@needs("promtool")
def test_promtool_finds_nothing_wrong() -> None:
    result = run("promtool", "check", "rules", "--lint=all", "--lint-fatal", ALERTS)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_every_alert_says_what_to_do_and_where_that_stands(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/operations.md#alert-{rule['alert'].lower()}"
    used = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
    assert used <= {"instance", "mailbox"}


@needs("promtool")
def test_a_message_names_the_mailbox_and_the_instance(tmp_path: Path) -> None:
    file = tmp_path / "case.yaml"
    case = CASES["no rounds"].group("no rounds")
    del case["promql_expr_test"]
    case["alert_rule_test"] = [{"eval_time": "110m", "alertname": "EwsSyncMailboxStalled", "exp_alerts": []}]
    content = {"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": [case]}
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    shown = run("promtool", "test", "rules", file).stdout
    assert "Nothing goes on in a@example.com" in shown
    assert "else restart ews-sync-0, which is safe" in shown

"""What the handbook says of options, keys, metrics and /status is what the program has."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from ews_sync.clock import SystemClock
from ews_sync.model import Bucket, DeadLetter, Mailbox
from ews_sync.server.report import as_json
from ews_sync.settings import reference
from ews_sync.settings.keys import BucketKeys, ConfigKeys, MailboxKeys
from ews_sync.settings.options import OPTIONS, VARIABLES
from ews_sync.telemetry.metrics import Metrics
from ews_sync.telemetry.status import Failure, ShardNote, Status
from ews_sync.telemetry.traffic import Outcome
from tests.docs.pages import DOCS, in_one_line
from tests.server.test_status import MOMENT, NOW, sample

CONFIGURATION = (DOCS / reference.PAGE).read_text(encoding="utf-8")
STATUS_SCHEMA = json.loads((DOCS / "status.schema.json").read_text(encoding="utf-8"))


def test_the_committed_reference_is_made_from_the_settings() -> None:
    # `python -m ews_sync.settings.reference docs` renews it.
    assert reference.renewed(CONFIGURATION) == CONFIGURATION
    assert (DOCS / reference.SCHEMA).read_text(encoding="utf-8") == reference.schema_text()


def test_the_reference_names_everything() -> None:
    for name in (*(option.text for option in OPTIONS), *(variable.name for variable in VARIABLES)):
        assert f"`{name}`" in CONFIGURATION
    for model in (ConfigKeys, MailboxKeys, BucketKeys):
        for field in model.model_fields.values():
            assert (field.description or "missing") in CONFIGURATION or field is MailboxKeys.model_fields["bucket"]


def test_every_number_has_a_unit() -> None:
    numbers = {name for name, field in ConfigKeys.model_fields.items() if field.annotation in {int, float}}
    assert reference.UNITS.keys() == numbers


def test_a_page_without_its_marks_is_not_touched() -> None:
    with pytest.raises(ValueError, match="begin of what is made from the options"):
        reference.renewed("# Configuration\n")


# --- Metrics ---------------------------------------------------------------------------------------------------------


def test_the_page_of_metrics_lists_what_there_is() -> None:
    status = full()
    status.token_ends_at = 2000.0
    status.traffic.answered("GetItem", Outcome.OK, 0.1)
    for mailbox in status.mailboxes.values():
        mailbox.last_success_at = mailbox.last_stored_at = mailbox.newest_received = NOW
    text = Metrics(status, SystemClock()).text().decode()
    families = set(re.findall(r"^# TYPE (ews_sync_\S+ \S+)", text, re.MULTILINE))
    page = (DOCS / "metrics.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(ews_sync_[a-z_]+)[^`]*` \| (\w+) \|", page, re.MULTILINE)
    assert {f"{name} {kind}" for name, kind in listed} == families


def test_queries_use_metrics_that_there_are() -> None:
    page = (DOCS / "metrics.md").read_text(encoding="utf-8")
    listed = {name for name, _ in re.findall(r"^\| `(ews_sync_[a-z_]+)[^`]*` \| (\w+) \|", page, re.MULTILINE)}
    asked = set(re.findall(r"ews_sync_[a-z_]+", page.partition("## Queries")[2]))
    assert {name.removesuffix("_bucket") for name in asked} <= listed


# --- /status ---------------------------------------------------------------------------------------------------------


def full() -> Status:
    """Give a status in which everything that can be there is there."""
    status = sample()
    failure = Failure("no", "do", "HTTP 503", NOW, needs_operator=True)
    status.shard = ShardNote("ews-2", 2, 5, 3, 9)
    status.config_failure = status.failure = status.source_failure = status.sink_failure = failure
    status.config_loaded_at = status.config_checked_at = datetime(2026, 5, 4, tzinfo=UTC)
    status.warn("careful")
    status.health.stuck("storing mail of a@x")
    folder = status.mailboxes["abc@example.com"].folders["1"]
    folder.failure = replace(failure, code="")
    folder.synced_until = folder.last_synced_at = folder.newest_received = NOW
    letter = DeadLetter(
        Mailbox("abc@example.com", Bucket("bank", "mail")), "item", ("Inbox",), "HTTP 400", "not accepted"
    )
    status.note_dead_letter(letter, NOW)
    return status


@pytest.mark.parametrize("status", [sample(), full(), Status("1.2.3", NOW, config_missing=True)])
def test_real_reports_are_as_the_schema_says(status: Status) -> None:
    Draft202012Validator.check_schema(STATUS_SCHEMA)
    Draft202012Validator(STATUS_SCHEMA).validate(as_json(status, MOMENT))


def test_the_schema_has_the_fields_that_there_are() -> None:
    report = as_json(full(), MOMENT)
    definitions = STATUS_SCHEMA["$defs"]
    mailbox = report["mailboxes"][0]
    pairs: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (report, STATUS_SCHEMA),
        (mailbox, definitions["mailbox"]),
        (mailbox["folders"][0], definitions["folder"]),
        (report["failure"], definitions["failure"]),
        (report["shard"], definitions["shard"]),
        (report["dead_letters"][0], definitions["dead_letter"]),
    ]
    for shown, schema in pairs:
        assert shown.keys() == schema["properties"].keys() == set(schema["required"])


def test_the_page_of_status_explains_every_field() -> None:
    page = in_one_line((DOCS / "status.md").read_text(encoding="utf-8"))
    for schema in (STATUS_SCHEMA, *STATUS_SCHEMA["$defs"].values()):
        for name, field in schema.get("properties", {}).items():
            assert re.search(rf"\| `{name}` \| [^|]+ \| {re.escape(field['description'])} \|", page), name

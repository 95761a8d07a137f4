from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

from hypothesis import example, given, strategies as st

from ews_sync.model import Attachment, Metadata
from ews_sync.sinks.new_email import json_bytes, new_email, utc_text, utc_time
from tests.sinks.builders import RECEIVED, an_email

PLATFORM = """{
  "id": "<CAF@mail.example.org>",
  "mailbox": "abc@example.com",
  "timestamp": "2020-01-01T00:00:00Z",
  "mime_content": "Received: x\\r\\n",
  "metadata": {
    "sensitivity": "Normal",
    "size": 24576,
    "categories": [
      "Red"
    ],
    "importance": "Normal",
    "has_attachments": true,
    "conversation_id": "AAQ",
    "conversation_topic": "topic",
    "is_read": false,
    "folder": [
      "Inbox",
      "Claims"
    ],
    "received_at": "2020-01-01T00:00:02Z"
  },
  "attachments": [
    {
      "name": "a.pdf",
      "size": 12345,
      "content_type": "application/pdf"
    }
  ]
}"""


def test_it_is_what_the_platform_takes_in_its_order() -> None:
    email = replace(
        an_email("<CAF@mail.example.org>", attachments=(Attachment("a.pdf", 12345, "application/pdf"),)),
        metadata=Metadata(
            folder=("Inbox", "Claims"),
            received_at=RECEIVED,
            size=24576,
            sensitivity="Normal",
            importance="Normal",
            categories=("Red",),
            has_attachments=True,
            conversation_id="AAQ",
            conversation_topic="topic",
            is_read=False,
        ),
    )
    assert json_bytes(new_email(email, mime_content="Received: x\r\n"), indent=2).decode() == PLATFORM


def test_what_is_not_known_is_left_out() -> None:
    email = replace(an_email(), metadata=Metadata(folder=()))
    assert new_email(email) == {
        "id": "<1@example.com>",
        "mailbox": "abc@example.com",
        "timestamp": "2020-01-01T00:00:00Z",
        "metadata": {"folder": []},
    }


def test_times_are_in_utc_with_microseconds_only_where_there_are_any() -> None:
    berlin = timezone(timedelta(hours=1))
    assert utc_text(datetime(2020, 1, 1, 1, tzinfo=berlin)) == "2020-01-01T00:00:00Z"
    assert utc_text(datetime(2020, 1, 1, microsecond=5, tzinfo=UTC)) == "2020-01-01T00:00:00.000005Z"


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_come_back(time: datetime) -> None:
    assert utc_time(utc_text(time)) == time


@given(st.text(st.characters(codec=None) | st.sampled_from("\x85\u2028\u2029\n\r\x0b\x1c\ud800")))
def test_any_text_is_one_line_of_valid_utf8(text: str) -> None:
    data = json_bytes({"text": text})
    assert data.decode().splitlines() == [data.decode()]
    # Two lone surrogates side by side are one character in JSON: nothing tells them apart there.
    assert json.loads(data)["text"] == json.loads(json.dumps(text))


@given(
    st.text(st.characters(codec=None) | st.sampled_from("\x7f\x85\u2028\u2029\ud800\xe9")), st.sampled_from([None, 2])
)
@example("\x7f", None)
@example("\x85", None)
@example("\ud800", None)
def test_nothing_unsafe_is_there_raw(text: str, indent: int | None) -> None:
    data = json_bytes([text], indent=indent).decode()
    assert not set(data) & set("\x7f\x85\u2028\u2029")
    assert json.loads(data) == json.loads(json.dumps([text]))


def test_an_attachment_without_a_type_says_so() -> None:
    described = new_email(an_email(attachments=(Attachment("a.bin", 3),)))
    assert described["attachments"] == [{"name": "a.bin", "size": 3, "content_type": "application/octet-stream"}]

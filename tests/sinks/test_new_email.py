from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
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


TEXTS = st.text(
    st.characters(codec=None) | st.sampled_from('\x00\x1f"\\/\x7f\x80\x9f\xa0\u2027\u2028\u2029\ud83d\udd25')
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)


def as_the_standard_library_has_it(value: object, indent: int | None) -> bytes:
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=(",", ":" if indent is None else ": "))
    return re.sub("[\x7f-\x9f\u2028\u2029\ud800-\udfff]", lambda match: f"\\u{ord(match[0]):04x}", text).encode()


@given(VALUES, st.sampled_from([None, 2]))
def test_the_quick_way_gives_the_very_bytes_of_the_standard_library(value: object, indent: int | None) -> None:
    assert json_bytes(value, indent=indent) == as_the_standard_library_has_it(value, indent)


def test_every_character_that_is_unsafe_is_escaped_and_no_other() -> None:
    for number in (*range(0x800), *range(0x1FFF, 0x2100), *range(0xD7FF, 0xE001), 0xFFFF, 0x10000, 0x10FFFF):
        assert json_bytes(chr(number)) == as_the_standard_library_has_it(chr(number), None)


@given(st.binary() | TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass")), st.sampled_from(["", "\ud800"]))
def test_bytes_are_the_text_whose_utf8_they_are(data: bytes, beside: str) -> None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        with pytest.raises(UnicodeDecodeError):
            json_bytes({"content": data, "beside": beside})
    else:
        assert json_bytes({"content": data, "beside": beside}) == json_bytes({"content": text, "beside": beside})


def test_an_attachment_without_a_type_says_so() -> None:
    described = new_email(an_email(attachments=(Attachment("a.bin", 3),)))
    assert described["attachments"] == [{"name": "a.bin", "size": 3, "content_type": "application/octet-stream"}]

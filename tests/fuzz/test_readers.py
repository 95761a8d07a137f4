"""The other readers of what comes from outside: any bytes in, what is valid or one of our errors out."""

from __future__ import annotations

import base64
import json
import random
import re
import time
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from hypothesis import example, given, settings, strategies as st
from pydantic import SecretStr

from ews_sync.errors import CheckpointError, EwsSyncError, ProtocolError
from ews_sync.sinks.keyed_state import from_keyed_state, to_keyed_state
from ews_sync.sinks.new_email_json import email_pieces
from ews_sync.sinks.platform.answers import read_answer, read_config
from ews_sync.sinks.platform.json_stream import ElementReader, TooLargeError
from ews_sync.sources.auth.ntlm import _Context
from ews_sync.sources.auth.oauth2_refusals import refusal_error, refusal_of
from ews_sync.web.challenges import Challenge, challenges
from ews_sync.web.offers import not_offered
from tests.fuzz.names import NAMES
from tests.sinks.builders import an_email
from tests.sinks.messages import entities
from tests.sources.support import cut

NOW = datetime(2026, 1, 1, tzinfo=UTC)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | NAMES | st.just(10**400) | st.just("9" * 5000),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(NAMES, below, max_size=4),
    max_leaves=10,
)


def assert_fit_to_be_read(error: EwsSyncError) -> None:
    line = str(error)
    assert line.isprintable(), repr(line)
    assert len(line) < 2000


# --- Messages --------------------------------------------------------------------------------------------------------


def strictly(data: bytes) -> Any:
    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    return json.loads(data.decode("utf-8", "strict"), parse_constant=refuse)


@st.composite
def damaged_messages(draw: st.DrawFn) -> bytes:
    data = draw(entities())
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        part = draw(st.sampled_from([b"", b"\xff", b'"', b"\\", b"=?", b"?=", b";", b"--b0", b"\r", b"\n", b"\0"]))
        data = data[:start] + part * draw(st.sampled_from([1, 2, 200])) + data[start + draw(st.integers(0, 9)) :]
    return data


@given(st.binary(max_size=300) | damaged_messages(), NAMES, NAMES, st.integers(0, 60))
@settings(max_examples=200, deadline=None)
def test_any_message_becomes_one_line_of_strict_json(data: bytes, email_id: str, folder: str, block: int) -> None:
    line = b"".join(email_pieces(an_email(email_id, data=data, folder=(folder,)), block=block))
    said = strictly(line)
    assert said["metadata"]["size"] == len(data)
    said["mime_content"].encode("utf-8", "strict")
    assert b"\n" not in line
    assert len(line.decode().splitlines()) == 1
    assert not re.search("[\x00-\x1f\x7f-\x9f]", line.decode()), "nothing in it moves a terminal's cursor"


# --- The platform ----------------------------------------------------------------------------------------------------

TIMES = st.sampled_from(["2026-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "", "soon"])


def near(*keys: str, **known: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with the right keys, and in each the right thing or anything."""
    fields = dict.fromkeys(keys, TIMES | NAMES) | known
    return st.fixed_dictionaries({}, optional={key: value | JSON for key, value in fields.items()})


BACKFILLS = near(
    "since", "until", "position", order=st.sampled_from(["received", "created"]), done=st.integers(),
    total=st.integers(), seen=st.dictionaries(TIMES, st.lists(NAMES, max_size=2), max_size=2), verify=st.booleans(),
)  # fmt: skip
CURSORS = near("position", "newest", version=st.just(1), backfill=BACKFILLS, drafts=st.lists(NAMES, max_size=2))
STATES = near(
    "mailbox_name", "folder_id", "synced_until", "last_synced_at",
    folder_path=st.lists(NAMES, max_size=2), cursor=CURSORS | CURSORS.map(json.dumps) | st.just("[" * 100_000),
)  # fmt: skip


@given(STATES | JSON.filter(lambda value: isinstance(value, dict)))
@example({"mailbox_name": "m", "folder_id": "f", "synced_until": "0001-01-01T00:00:00+23:59"})
@example({"mailbox_name": "m", "folder_id": "f", "cursor": {"version": 1, "newest": "9999-12-31T23:59:59-23:59"}})
@settings(deadline=None)
def test_any_sync_state_is_a_checkpoint_or_our_error(state: dict[str, Any]) -> None:
    try:
        read = from_keyed_state(state)
    except CheckpointError as error:
        assert_fit_to_be_read(error)
    else:
        assert from_keyed_state(to_keyed_state(read.mailbox, read.checkpoint)).checkpoint == read.checkpoint


ANSWER_TOKENS = st.sampled_from(
    [b'{"status":"ok","list":[', b'{"a":', b"{", b"}", b"[", b"]", b'"', b"\\", b",", b":", b"1", b"\xff", b'"x"', b" "]
)  # fmt: skip


@given(st.lists(ANSWER_TOKENS, max_size=40).map(b"".join) | st.binary(max_size=100), st.integers(1, 9))
def test_a_long_answers_elements_are_the_same_however_it_is_cut(data: bytes, size: int) -> None:
    def elements(pieces: list[bytes]) -> tuple[list[bytes], bytes] | None:
        reader = ElementReader(largest=60, longest_string=20)
        try:
            found = [element for piece in pieces for element in reader.feed(piece)]
        except TooLargeError:
            return None
        return found, reader.rest()

    assert elements(cut(data, size)) == elements([data])


def is_dumpable(value: Any) -> bool:
    return len(repr(value)) < 4000


@given(
    st.sampled_from([200, 201, 204, 301, 400, 401, 402, 403, 404, 407, 413, 418, 422, 429, 500, 502, 503, 999]),
    st.binary(max_size=60) | JSON.filter(is_dumpable).map(json.dumps).map(str.encode) | st.just(b"[" * 100_000)
    | st.builds(lambda text: json.dumps({"status": "error", "message": text}).encode(), NAMES),
    st.sampled_from(["", "9" * 400, "-1", "Mon, 99 Jan 2026 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 -2359"]),
)  # fmt: skip
@settings(deadline=None)
def test_any_answer_of_the_platform_is_an_answer_or_our_error(status: int, body: bytes, wait: str) -> None:
    request = httpx.Request("GET", "https://platform.test/api/")
    headers = [(b"Retry-After", wait.encode()), (b"Location", b"http://[bad"), (b"Content-Type", b"x\xff")]
    response = httpx.Response(status, headers=headers, request=request)
    for read in (read_answer, read_config):
        try:
            read("asking", response, body, NOW)
        except EwsSyncError as error:
            assert_fit_to_be_read(error)


# --- Logging in ------------------------------------------------------------------------------------------------------


@given(JSON | near("error", "error_description", "correlation_id", "timestamp", error_codes=st.lists(JSON, max_size=3)))
@example({"error": "x", "error_codes": [10**4000, True, -5]})
@settings(deadline=None)
def test_any_refusal_of_an_identity_provider_is_one_line(body: object) -> None:
    refusal = refusal_of(body)
    if refusal is not None:
        error = refusal_error(refusal, "login.test", secrets=("secret",))
        assert_fit_to_be_read(error)
        assert len(error.code) <= 80


PARTS = st.sampled_from(
    ["Basic", "NTLM", "Negotiate", " ", ",", '"', "\\", "=", "realm=", "TlRM", "\t", "\x9b", "\u00e9"]
)


@given(st.lists(st.lists(PARTS, max_size=12).map("".join) | NAMES, max_size=4))
def test_any_challenge_can_be_read_and_shown(values: list[str]) -> None:
    found = challenges(values)
    assert_fit_to_be_read(not_offered("NTLM", found[:8]))
    assert all(challenge.scheme.isascii() for challenge in found)


@pytest.mark.parametrize("header", ['"\\' * 50_000, '"' * 99_999, 'a="\\",' * 16_000, "=" * 100_000, ", " * 50_000])
def test_a_header_full_of_open_quotes_is_read_in_linear_time(header: str) -> None:
    begun = time.process_time()
    challenges([header])
    # A few milliseconds; it took twenty seconds, in which nothing else in the process got on.
    assert time.process_time() - begun < 2


CHALLENGE = base64.b64decode(
    "TlRMTVNTUAACAAAADAAMADgAAAA1goniASNFZ4mrze8AAAAAAAAAACQAJABEAAAABgGxHQAAAA9EAG8AbQBhAGkAbgACAAwARABvAG0AYQBpAG4A"
    "AQAMAFMAZQByAHYAZQByAAAAAAA="
)


@pytest.mark.parametrize("scheme", ["NTLM", "Negotiate"])
@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_ntlm_challenge_is_answered_or_our_error(scheme: str, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(50):
        data = bytearray(CHALLENGE)
        for _ in range(rng.randrange(6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        token = base64.b64encode(
            bytes(data[: rng.choice((len(data), len(data), rng.randrange(len(data) + 1)))])
        ).decode()
        context = _Context("user@example.com", SecretStr("swordfish"), scheme)
        context.step()
        try:
            answer = context.step(Challenge(scheme, token))
        except ProtocolError as error:
            assert_fit_to_be_read(error)
        else:
            assert answer.isascii()
            assert "swordfish" not in answer


@pytest.mark.parametrize("user", ["user@example.com", "EXAMPLE\\user", "user"])
def test_negotiate_asks_no_kerberos_server(user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It did: with the password, and for as long as DNS takes to say that there is none."""
    gss = pytest.importorskip("spnego._gss")
    asked: list[object] = []
    monkeypatch.setattr(gss, "_kinit", lambda *arguments, **_: asked.append(arguments))
    _Context(user, SecretStr("swordfish"), "Negotiate").step()
    assert asked == []

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st

from ews_sync.errors import ConfigurationError
from ews_sync.model import Bucket, Mailbox, StartFrom
from ews_sync.settings.exchange import AccessType
from ews_sync.settings.keys import BucketKeys, ConfigKeys, MailboxKeys
from ews_sync.settings.values import Pace
from tests.settings.examples import basic, load, mailbox, problems

DEFAULTS: dict[str, object] = {
    "port": 80,
    "access_type": "delegate",
    "ews_ssl_verify": True,
    "poll_frequency": 15,
    "poll_message_sleep": 0.1,
    "max_concurrent_uploads": 8,
    "emails_per_folder": 2520,
    "reinfer_batch_size": 80,
    "audit_email": None,
    "ews_ssl_ciphers": None,
}


def test_documented_defaults() -> None:
    assert {key: ConfigKeys.model_fields[key].default for key in DEFAULTS} == DEFAULTS
    assert load(basic()).pace == Pace(15.0, 0.1, 8, 2520, 80) == Pace()
    exchange = load(basic()).exchange
    assert (exchange.access_type, exchange.ssl_verify) == (AccessType.DELEGATE, True)
    assert (exchange.ssl_ca_bundle, exchange.ssl_ciphers) == (None, None)
    assert load(basic()).audit_email is None
    assert load(basic()).mailboxes == (Mailbox("a@b.c", Bucket("o", "n"), StartFrom.BUCKET, None, (), ()),)


@pytest.mark.parametrize("model", [ConfigKeys, MailboxKeys, BucketKeys])
def test_every_key_is_described(model: type[ConfigKeys]) -> None:
    assert all((field.description or "").endswith(".") for field in model.model_fields.values())


RANGES = {
    "poll_frequency": (0, None, "a number, 0 or more"),
    "poll_message_sleep": (0, None, "a number, 0 or more"),
    "max_concurrent_uploads": (0, 32, "a whole number between 0 and 32"),
    "emails_per_folder": (1, 100_000, "a whole number between 1 and 100,000"),
    "reinfer_batch_size": (1, 1000, "a whole number between 1 and 1000"),
}


@pytest.mark.parametrize("key", RANGES)
def test_both_ends_of_a_range(key: str) -> None:
    low, high, allowed = RANGES[key]
    assert getattr(load(basic(**{key: low})).pace, key) == low
    assert getattr(load(basic(**{key: str(low)})).pace, key) == low
    assert problems(basic(**{key: low - 1})) == [f"{key}: must be {allowed}, not {low - 1}"]
    if high is not None:
        assert getattr(load(basic(**{key: high})).pace, key) == high
        assert problems(basic(**{key: high + 1})) == [f"{key}: must be {allowed}, not {high + 1}"]


@pytest.mark.parametrize(
    ("value", "as_shown"),
    [(True, "true"), ("x", '"x"'), ([], "a list"), ({}, "an object"), (float("nan"), "NaN"), ("", '""')],
)
@pytest.mark.parametrize("key", RANGES)
def test_not_a_number(key: str, value: object, as_shown: str) -> None:
    assert problems(basic(**{key: value})) == [f"{key}: must be {RANGES[key][2]}, not {as_shown}"]


def test_a_fraction_is_no_whole_number() -> None:
    assert problems(basic(reinfer_batch_size=1.5)) == [
        "reinfer_batch_size: must be a whole number between 1 and 1000, not 1.5"
    ]
    assert load(basic(poll_frequency="0.25")).pace.poll_frequency == 0.25
    assert load(basic(reinfer_batch_size=15.0)).pace.reinfer_batch_size == 15


@pytest.mark.parametrize(("value", "verify"), [(True, True), (False, False), ("true", True), ("False", False)])
def test_ssl_verify(value: object, verify: bool) -> None:  # noqa: FBT001 - a table's column
    assert load(basic(ews_ssl_verify=value)).exchange.ssl_verify is verify


def test_null_is_not_given() -> None:
    assert load(basic(poll_frequency=None, audit_email=None, ews_ssl_ciphers=None)) == load(basic())
    assert load(mailbox(start_timestamp=None, folder_allowlist=None)) == load(basic())
    assert problems(basic(auth_type=None)) == ['auth_type: missing: it must be "ntlm", "oauth2", "basic" or "kerberos"']


EXAMPLE = 'a time in ISO 8601, such as "2020-01-01T00:00:00+00:00"'
FOLDERS = 'a list of folder paths, each of them a list of names, such as [["Inbox", "Invoices"]]'


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (basic(ews_ssl_verify="no"), 'ews_ssl_verify: must be true or false, not "no"'),
        (basic(ews_ssl_verify=0), "ews_ssl_verify: must be true or false, not 0"),
        (basic(access_type="owner"), 'access_type: must be "delegate" or "impersonation", not "owner"'),
        (basic(auth_type="ntml"), 'auth_type: must be "ntlm", "oauth2", "basic" or "kerberos", not "ntml"'),
        (basic("auth_type"), 'auth_type: missing: it must be "ntlm", "oauth2", "basic" or "kerberos"'),
        (basic(auth_user=""), 'auth_user: must be a text that is not empty, not ""'),
        (
            basic(auth_password=12345678),
            "auth_password: must be a text that is not empty (what was given is not shown)",
        ),
        (
            basic(audit_email="nobody"),
            'audit_email: must be an email address, such as "abc@example.com", not "nobody"',
        ),
        (basic(poll_mesage_sleep=1), "poll_mesage_sleep: unknown key; did you mean poll_message_sleep?"),
        (basic(zzz=1), "zzz: unknown key"),
        (basic("mailboxes"), "mailboxes: missing: list the mailboxes to fetch"),
        (basic(mailboxes={}), "mailboxes: must have at least one mailbox, and it is empty"),
        (
            basic(mailboxes=["a@b.c"]),
            "mailboxes: must be an object whose keys are the mailboxes' addresses, not a list",
        ),
        (basic(mailboxes={"a@b.c": 1}), 'mailboxes."a@b.c": must be an object with "bucket", not 1'),
        (
            basic(mailboxes={"a@b.c": {}}),
            'mailboxes."a@b.c".bucket: missing: it must be an object with "owner" and "name"',
        ),
        (mailbox(bucket="o/n"), 'mailboxes."a@b.c".bucket: must be an object with "owner" and "name", not "o/n"'),
        (
            mailbox(bucket={"owner": "o"}),
            'mailboxes."a@b.c".bucket.name: missing: it must be a name of 1 to 250 bytes, without control characters',
        ),
        (
            mailbox(bucket={"owner": "o", "name": "n", "nam": "n"}),
            'mailboxes."a@b.c".bucket.nam: unknown key; did you mean name?',
        ),
        (mailbox(start_from="now"), 'mailboxes."a@b.c".start_from: must be "bucket" or "config", not "now"'),
        (mailbox(start_timestamp="now"), f'mailboxes."a@b.c".start_timestamp: must be {EXAMPLE}, not "now"'),
        (mailbox(start_timestamp=1577836800), f'mailboxes."a@b.c".start_timestamp: must be {EXAMPLE}, not 1577836800'),
        (
            mailbox(start_timestamp="0001-01-01T00:00:00+14:00"),
            f'mailboxes."a@b.c".start_timestamp: must be {EXAMPLE}, not "0001-01-01T00:00:00+14:00"',
        ),
        (mailbox(start_timestmp="x"), 'mailboxes."a@b.c".start_timestmp: unknown key; did you mean start_timestamp?'),
        (mailbox(folder_allowlist="Inbox"), f'mailboxes."a@b.c".folder_allowlist: must be {FOLDERS}, not "Inbox"'),
        (mailbox(folder_denylist=["a"]), f'mailboxes."a@b.c".folder_denylist[0]: must be {FOLDERS}, not "a"'),
        (mailbox(folder_denylist=[[]]), f'mailboxes."a@b.c".folder_denylist[0]: must be {FOLDERS}, not a list'),
        (mailbox(folder_denylist=[["a", ""]]), f'mailboxes."a@b.c".folder_denylist[0][1]: must be {FOLDERS}, not ""'),
        (mailbox(owner="o"), 'mailboxes."a@b.c".owner: unknown key here: it belongs into "bucket"'),
        (
            mailbox(poll_frequency=1),
            'mailboxes."a@b.c".poll_frequency: unknown key here: it belongs to the top level of the file',
        ),
        (basic(start_from="bucket"), "start_from: unknown key here: it belongs to a mailbox"),
        (
            mailbox(**{"bucket.owner": "o"}),
            'mailboxes."a@b.c"."bucket.owner": unknown key: write it as "bucket": {"owner": …}',
        ),
    ],
)
def test_one_problem_one_line(config: dict[str, Any], line: str) -> None:
    assert problems(config) == [line]


@pytest.mark.parametrize("address", ["nobody", "@b.c", "a@", "a b@c.d", "a@b.c\n", ""])
def test_not_an_address(address: str) -> None:
    entry = {"bucket": {"owner": "o", "name": "n"}}
    (line,) = problems(basic(mailboxes={address: entry}))
    assert line.endswith(': must be an email address, such as "abc@example.com"')
    assert line.isprintable()


def test_length_of_an_address() -> None:
    entry = {"bucket": {"owner": "o", "name": "n"}}
    assert load(basic(mailboxes={"a" * 316 + "@b.c": entry})).mailboxes
    (line,) = problems(basic(mailboxes={"a" * 317 + "@b.c": entry}))
    assert line.endswith(": must be an email address of at most 320 bytes, not 321")


def test_addresses_that_differ_in_case_only() -> None:
    entry = {"bucket": {"owner": "o", "name": "n"}}
    assert problems(basic(mailboxes={"a@b.c": entry, "A@B.c": entry})) == [
        'mailboxes."A@B.c": is the same mailbox as "a@b.c", but for capital letters: keep one'
    ]


def test_mailboxes_as_documented() -> None:
    (found,) = load(
        mailbox(
            start_from="config",
            start_timestamp="2020-01-01T02:00:00+02:00",
            folder_allowlist=[["Inbox"], ["Archive", "2020"]],
            folder_denylist=[["Inbox", "Spam"]],
        )
    ).mailboxes
    assert found == Mailbox(
        "a@b.c",
        Bucket("o", "n"),
        StartFrom.CONFIG,
        datetime(2020, 1, 1, tzinfo=UTC),
        (("Inbox",), ("Archive", "2020")),
        (("Inbox", "Spam"),),
    )


@pytest.mark.parametrize(
    "text", ["2020-01-01T00:00:00+00:00", "2020-01-01T00:00:00Z", "2020-01-01T00:00:00", "2020-01-01"]
)
def test_times(text: str) -> None:
    found = load(mailbox(start_timestamp=text)).mailboxes[0].start_timestamp
    assert found == datetime(2020, 1, 1, tzinfo=UTC)
    assert found.tzinfo is UTC


def test_all_problems_at_once() -> None:
    found = problems(basic("auth_user", port=0, poll_frequency=-1, mailboxes={"x": {}}, zzz=1))
    assert [line.partition(":")[0] for line in found] == [
        "mailboxes.x",
        "port",
        "poll_frequency",
        "zzz",
        "mailboxes.x.bucket",
        "auth_user",
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below, max_size=3),
    max_leaves=5,
)


@hypothesis_settings(max_examples=150, deadline=None)
@given(
    changes=st.dictionaries(st.sampled_from(sorted(set(ConfigKeys.model_fields) - {"ews_ssl_ca_bundle"})), JSON),
    entry=st.dictionaries(st.sampled_from(sorted(MailboxKeys.model_fields)), JSON),
)
def test_any_json_loads_or_is_explained(changes: dict[str, Any], entry: dict[str, Any]) -> None:
    config = basic(**changes)
    if isinstance(config["mailboxes"], dict):
        config["mailboxes"]["x@y.z"] = entry
    for line in complaints(config):
        assert line.isprintable()
        assert "pydantic" not in line.lower()
        assert "validation" not in line.lower()


def complaints(config: dict[str, Any]) -> tuple[str, ...]:
    try:
        load(config)
    except ConfigurationError as error:
        return error.problems
    return ()

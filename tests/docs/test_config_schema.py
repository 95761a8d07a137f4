"""The schema of the config file and the loader are of one opinion, as far as a schema can have one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import NoneType
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from ews_sync import cli
from ews_sync.errors import ConfigurationError
from ews_sync.settings.keys import SECRETS, BucketKeys, ConfigKeys, MailboxKeys
from ews_sync.settings.schema import DIALECT, config_schema
from tests.docs.pages import PAGES, ROOT, fenced
from tests.settings.examples import CERTIFICATE, CLIENT_SECRET, FILLED, KEY, NTLM, THUMBPRINT, basic, load, mailbox

SCHEMA = config_schema()
VALIDATOR = Draft202012Validator(SCHEMA)
PASSWORD = {"REINFER_EWS_AUTH_PASS": "swordfish"}
SECRET = {"REINFER_EWS_AUTH_OAUTH_CLIENT_SECRET": "s3cret"}
OAUTH2 = CLIENT_SECRET | FILLED | {"auth_oauth_client_secret": "s3cret"}
BY_CERTIFICATE = (
    CERTIFICATE
    | FILLED
    | {"auth_oauth_client_credential_private_key": KEY, "auth_oauth_client_credential_thumbprint": THUMBPRINT}
)


def loads(config: Any, environ: dict[str, str] | None = None) -> bool:
    try:
        load(config, environ)
    except ConfigurationError:
        return False
    return True


def test_it_is_a_schema() -> None:
    assert SCHEMA["$schema"] == DIALECT
    Draft202012Validator.check_schema(SCHEMA)


def test_every_key_is_in_it_with_its_description_and_default() -> None:
    for model, part in (
        (ConfigKeys, SCHEMA),
        (MailboxKeys, SCHEMA["$defs"]["mailbox"]),
        (BucketKeys, SCHEMA["$defs"]["bucket"]),
    ):
        assert part["properties"].keys() == model.model_fields.keys()
        assert part["additionalProperties"] is False
        for key, field in model.model_fields.items():
            shown = part["properties"][key]
            assert shown["description"] == field.description
            if field.default is not None and not field.is_required() and field.default != ():
                assert shown.get("default", {}) == field.get_default(call_default_factory=True)
    assert {key for key, shown in SCHEMA["properties"].items() if shown.get("writeOnly")} == SECRETS


@pytest.mark.parametrize("config", [NTLM, OAUTH2, BY_CERTIFICATE, basic(), mailbox(start_from=None)])
def test_the_documented_configs_are_accepted_once_filled_in(config: dict[str, Any]) -> None:
    assert loads(config, PASSWORD)
    VALIDATOR.validate(config)


@pytest.mark.parametrize("config", [CLIENT_SECRET, CERTIFICATE])
def test_placeholders_are_refused_where_they_stand(config: dict[str, Any]) -> None:
    wrong = {str(error.path[0]) for error in VALIDATOR.iter_errors(config)}
    assert wrong >= {key for key, value in config.items() if isinstance(value, str) and "<" in value}


def configs() -> list[Any]:
    pages = [ROOT / "README.md", *PAGES]
    blocks = [(page, text) for page in pages for text in fenced(page, "json")]
    return [pytest.param(text, id=f"{page.name}-{count}") for count, (page, text) in enumerate(blocks)]


@pytest.mark.parametrize("text", configs())
def test_json_in_the_handbook_is_json_and_its_configs_load(text: str) -> None:
    value = json.loads(text)
    if "mailboxes" in value and "auth_type" in value:
        assert loads(value, PASSWORD | SECRET)
        VALIDATOR.validate(value)


# --- Every key with every kind of value ------------------------------------------------------------------------------

VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    "true",
    " False ",
    "yes",
    0,
    -1,
    1,
    1.5,
    15.0,
    80,
    65536,
    10**6,
    "5",
    " 80 ",
    "15.0",
    "1e1",
    "-3",
    "",
    "  ",
    "x",
    "a b",
    "<word>",
    "has <word> in it",
    "ntlm",
    "oauth2",
    "kerberos",
    "NTLM",
    "bucket",
    "impersonation",
    "https://mail.example.com",
    "HTTPS://mail.example.com/",
    "https://mail.example.com/EWS/Exchange.asmx",
    "https://mail.example.com/EWS/?x",
    "https://user@mail.example.com/EWS/x",
    "mail.example.com:443",
    "mail.example.com/",
    "[::1]",
    "::1",
    "a@b.c",
    "a@b.c d",
    "a @b.c",
    "2020-01-01",
    "2020-01-01T00:00:00+00:00",
    "2020-01-01T00:00:00Z",
    "20200101 0102",
    "2020-W01-1",
    "1577836800",
    "soon",
    THUMBPRINT,
    "https://login.microsoftonline.com/contoso.com/",
    "https://login.microsoftonline.com/Common/",
    "http://login.microsoftonline.com/contoso.com/",
    [],
    ["Inbox"],
    [["Inbox"]],
    [["Inbox", ""]],
    [["<word>"]],
    [["Inbox", None]],
    [[]],
    {},
    {"a": 1},
    {"owner": "o", "name": "n"},
    {"owner": "o"},
    {"owner": "o", "name": None},
    {"owner": "o", "name": "n", "x": 1},
)


@dataclass(frozen=True)
class Opinion:
    """What the loader and the schema say to a key's value."""

    key: str
    value: Any
    loads: bool
    valid: bool


def in_config(key: str, value: Any) -> dict[str, Any]:
    """Put a value into a config in which its key counts."""
    by_certificate = key.startswith("auth_oauth_client_credential")
    base = BY_CERTIFICATE if by_certificate else OAUTH2 if key.startswith("auth_oauth") else basic()
    config = {other: kept for other, kept in base.items() if {key, other} != {"host", "ews_endpoint"}}
    return config | {key: value}


@pytest.fixture(scope="module")
def opinions() -> list[Opinion]:
    def of(key: str, value: Any, config: dict[str, Any]) -> Opinion:
        return Opinion(key, value, loads(config), VALIDATOR.is_valid(config))

    bucket = {"owner": "o", "name": "n"}
    return [
        *(of(key, value, in_config(key, value)) for key in ConfigKeys.model_fields for value in VALUES),
        *(of(key, value, mailbox(**{key: value})) for key in MailboxKeys.model_fields for value in VALUES),
        *(of(key, value, mailbox(bucket=bucket | {key: value})) for key in BucketKeys.model_fields for value in VALUES),
    ]


def test_what_the_loader_takes_the_schema_takes(opinions: list[Opinion]) -> None:
    assert sum(opinion.loads for opinion in opinions) > 200
    assert [opinion for opinion in opinions if opinion.loads and not opinion.valid] == []


def test_what_the_loader_refuses_the_schema_refuses_unless_it_cannot_know(opinions: list[Opinion]) -> None:
    passed = {(found.key, type(found.value)) for found in opinions if found.valid and not found.loads}
    assert {key for key, kind in passed if kind is NoneType} == {
        # What may come from the environment, or not at all where another key is given.
        "ews_endpoint",
        "host",
        "auth_user",
        "auth_password",
        "auth_oauth_authority",
        "auth_oauth_client_id",
        "auth_oauth_client_secret",
        "auth_oauth_client_credential_private_key",
        "auth_oauth_client_credential_thumbprint",
    }
    assert {key for key, kind in passed if kind is str} == {
        # What the machine has to be asked: its files, and its OpenSSL.
        "ews_ssl_ca_bundle",
        "ews_ssl_ciphers",
        "auth_oauth_client_credential_private_key",
        "auth_oauth_client_credential_certificate",
        # Which keys another way to log in needs, since the environment may give them.
        "auth_type",
        # Numbers written as texts: only what is a number has limits.
        "port",
        "max_concurrent_uploads",
        "emails_per_folder",
        "reinfer_batch_size",
    }
    assert {kind for _, kind in passed} == {str, NoneType}


@pytest.mark.parametrize(
    "config",
    [
        {},
        basic("mailboxes"),
        basic("auth_type"),
        basic(mailboxes={}),
        basic(mailboxes={"a@b.c": {}}),
        basic(mailboxes={"nobody": {"bucket": {"owner": "o", "name": "n"}}}),
        basic(mailboxes={"a @b.c": {"bucket": {"owner": "o", "name": "n"}}}),
        basic(mailboxes={"<you>@b.c": {"bucket": {"owner": "o", "name": "n"}}}),
        basic(mailboxes={"a" * 320 + "@b.c": {"bucket": {"owner": "o", "name": "n"}}}),
        basic(pol_frequency=3),
        basic(ews_endpoint="https://mail.example.com/EWS/Exchange.asmx"),
        mailbox(folders=[["Inbox"]]),
        mailbox(bucket={"owner": "o\x07o", "name": "n"}),
        mailbox(bucket={"owner": "o", "name": "n" * 251}),
        OAUTH2 | {"auth_oauth_client_credential_thumbprint": THUMBPRINT},
        OAUTH2 | {"auth_oauth_client_credential_private_key": KEY},
    ],
)
def test_what_both_refuse(config: dict[str, Any]) -> None:
    assert not loads(config)
    assert not VALIDATOR.is_valid(config)


def test_what_both_take() -> None:
    for config in (
        basic(mailboxes={"a@b.c": {"bucket": {"owner": "o", "name": "n"}}, "off@b.c": None}),
        basic(ews_endpoint=None),
        mailbox(bucket={"owner": " o ", "name": "n" * 250 + "  "}),
        # The keys of a way to log in that is not used are not looked at.
        basic(auth_oauth_client_secret="s", auth_oauth_client_credential_thumbprint="none"),
        basic(auth_oauth_authority="https://login.microsoftonline.com/common/"),
    ):
        assert loads(config)
        VALIDATOR.validate(config)


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config-schema"]) == 0
    assert json.loads(capsys.readouterr().out) == SCHEMA


def test_the_copy_in_the_handbook_is_the_same() -> None:
    # `python -m ews_sync.settings.reference docs` renews it.
    assert json.loads((ROOT / "docs/config.schema.json").read_text(encoding="utf-8")) == SCHEMA

"""Configs to start from, among them the three of the documentation, word for word."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest

from ews_sync.errors import ConfigurationError
from ews_sync.settings.load import settings_from

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ews_sync.settings.values import Settings

PASSWORD = "hunter2-correct-horse"
PLATFORM = {"reinfer_api_endpoint": "https://mydomain.reinfer.io/api/"}
TOKEN = {"REINFER_API_TOKEN": "token-0123456789"}

_MAILBOXES = {
    address: {
        "bucket": {"owner": "project-name", "name": "bucket-name"},
        "start_from": "bucket",
        "start_timestamp": "2020-01-01T00:00:00+00:00",
    }
    for address in ("abc@example.com", "xyz@example.com")
}
CLIENT_SECRET: dict[str, Any] = {
    "ews_endpoint": "https://outlook.office365.com/EWS/Exchange.asmx",
    "auth_type": "oauth2",
    "auth_oauth_authority": "https://login.microsoftonline.com/<tenant_id>/",
    "auth_oauth_client_id": "<client_id>",
    "auth_oauth_client_secret": "<client_secret>",
    "access_type": "impersonation",
    "mailboxes": _MAILBOXES,
}
CERTIFICATE: dict[str, Any] = {
    "ews_endpoint": "https://outlook.office365.com/EWS/Exchange.asmx",
    "auth_type": "oauth2",
    "auth_oauth_authority": "https://login.microsoftonline.com/<tenant_id>/",
    "auth_oauth_client_id": "<client_id>",
    "auth_oauth_client_credential_private_key": "<private_key>",
    "auth_oauth_client_credential_thumbprint": "<thumbprint>",
    "access_type": "impersonation",
    "mailboxes": _MAILBOXES,
}
NTLM: dict[str, Any] = {
    "host": "https://exchange-server.example.com",
    "port": 443,
    "auth_type": "ntlm",
    "auth_user": "ews-service-user@example.com",
    "access_type": "delegate",
    "mailboxes": _MAILBOXES,
}
KEY = "-----BEGIN PRIVATE KEY-----\nMIIBVAIBADANBgkqhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----\n"
FILLED = {
    "auth_oauth_authority": "https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/",
    "auth_oauth_client_id": "66666666-7777-8888-9999-000000000000",
}
THUMBPRINT = "0123456789ABCDEF0123456789ABCDEF01234567"


def basic(*without: str, **changes: object) -> dict[str, Any]:
    """The smallest config there is, without some keys, and with others changed."""
    config: dict[str, Any] = {
        "host": "mail.example.com",
        "auth_type": "basic",
        "auth_user": "service",
        "auth_password": PASSWORD,
        "mailboxes": {"a@b.c": {"bucket": {"owner": "o", "name": "n"}}},
    }
    return copy.deepcopy({key: value for key, value in (config | changes).items() if key not in without})


def mailbox(**changes: object) -> dict[str, Any]:
    """A config whose mailbox has these keys."""
    return basic(mailboxes={"a@b.c": {"bucket": {"owner": "o", "name": "n"}} | changes})


def load(
    config: Mapping[str, Any], environ: Mapping[str, str] | None = None, arguments: Mapping[str, str] | None = None
) -> Settings:
    """Load in platform mode, which needs no directory."""
    return settings_from(config, PLATFORM | dict(arguments or {}), TOKEN | dict(environ or {}))


def problems(
    config: Mapping[str, Any], environ: Mapping[str, str] | None = None, arguments: Mapping[str, str] | None = None
) -> list[str]:
    """Load what must not load; the lines, without where the config came from."""
    with pytest.raises(ConfigurationError) as caught:
        load(config, environ, arguments)
    return [line.removesuffix(" (in the given config)") for line in caught.value.problems]

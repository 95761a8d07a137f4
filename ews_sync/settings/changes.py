"""What is different between two configs, in words for the log: keys and mailboxes by name, secrets without values."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from ews_sync.settings.problems import shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ews_sync.model import Mailbox
    from ews_sync.settings.exchange import Auth, Exchange
    from ews_sync.settings.values import Pace, Settings

_MOST = 20
_KEYS = {
    "endpoint": "ews_endpoint",
    "ssl_verify": "ews_ssl_verify",
    "ssl_ca_bundle": "ews_ssl_ca_bundle",
    "ssl_ciphers": "ews_ssl_ciphers",
    "user": "auth_user",
    "password": "auth_password",
    "authority": "auth_oauth_authority",
    "client_id": "auth_oauth_client_id",
    "credential": "auth_oauth_client_secret or auth_oauth_client_credential",
}
"""The config's keys for fields that are called otherwise."""


def changes(old: Settings, new: Settings) -> tuple[str, ...]:
    """Say what `new` has other than `old`; nothing when the config is the same.

    The order of the mailboxes does not count: JSON objects have none. The options are not looked at.
    """
    lines = [*_exchange(old.exchange, new.exchange), *_fields(old.pace, new.pace)]
    if old.audit_email != new.audit_email:
        lines.append(_line("audit_email", old.audit_email, new.audit_email))
    return (*lines, *_mailboxes(old.mailboxes, new.mailboxes))


def _exchange(old: Exchange, new: Exchange) -> list[str]:
    lines = _fields(old, new, but="auth")
    if type(old.auth) is not type(new.auth):
        return [*lines, _line("auth_type", old.auth.kind, new.auth.kind)]
    return [*lines, *_fields(old.auth, new.auth)]


def _fields(old: Exchange | Auth | Pace, new: Exchange | Auth | Pace, but: str = "") -> list[str]:
    return [
        _line(_KEYS.get(field.name, field.name), getattr(old, field.name), getattr(new, field.name))
        for field in fields(old)
        if field.name != but and getattr(old, field.name) != getattr(new, field.name)
    ]


def _line(key: str, old: object, new: object) -> str:
    if all(value is None or isinstance(value, (str, int, float, Path)) for value in (old, new)):
        return f"{key}: {_value(old)} -> {_value(new)}"
    return f"{key} changed"


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return "not set" if value is None else shown(str(value) if isinstance(value, Path) else value)


def _mailboxes(old: Iterable[Mailbox], new: Iterable[Mailbox]) -> list[str]:
    before = {mailbox.address: mailbox for mailbox in old}
    after = {mailbox.address: mailbox for mailbox in new}
    changed = [
        f"{address} ({', '.join(_keys(before[address], mailbox))})"
        for address, mailbox in after.items()
        if address in before and before[address] != mailbox
    ]
    kinds = {
        "added": [address for address in after if address not in before],
        "removed": [address for address in before if address not in after],
        "changed": changed,
    }
    return [f"mailboxes {kind}: {_listed(names)}" for kind, names in kinds.items() if names]


def _keys(old: Mailbox, new: Mailbox) -> list[str]:
    return [field.name for field in fields(old) if getattr(old, field.name) != getattr(new, field.name)]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST:,} more" if len(names) > _MOST else ""
    return ", ".join(names[:_MOST]) + more

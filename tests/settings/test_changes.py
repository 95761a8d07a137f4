from __future__ import annotations

from typing import Any

import pytest

from ews_sync.settings.changes import changes
from tests.settings.examples import CLIENT_SECRET, FILLED, PASSWORD, basic, load


def entry(**keys: object) -> dict[str, Any]:
    return {"bucket": {"owner": "o", "name": "n"}} | keys


@pytest.mark.parametrize(
    ("keys", "lines"),
    [
        ({}, []),
        (
            {"port": 443},
            [
                'ews_endpoint: "http://mail.example.com/EWS/Exchange.asmx" -> "https://mail.example.com/EWS/Exchange.asmx"'
            ],
        ),
        ({"auth_password": "another secret"}, ["auth_password changed"]),
        ({"auth_user": "you"}, ['auth_user: "service" -> "you"']),
        ({"auth_type": "ntlm"}, ['auth_type: "basic" -> "ntlm"']),
        (
            {"ews_ssl_verify": False, "poll_frequency": 30},
            ["ews_ssl_verify: true -> false", "poll_frequency: 15 -> 30"],
        ),
        ({"audit_email": "x@y.z"}, ['audit_email: not set -> "x@y.z"']),
        (
            {"mailboxes": {"new@b.c": entry(), "a@b.c": entry(folder_denylist=[["Junk"]], start_from="config")}},
            ["mailboxes added: new@b.c", "mailboxes changed: a@b.c (start_from, folder_denylist)"],
        ),
        ({"mailboxes": {"new@b.c": entry()}}, ["mailboxes added: new@b.c", "mailboxes removed: a@b.c"]),
    ],
)
def test_what_changed_is_said_by_key(keys: dict[str, Any], lines: list[str]) -> None:
    assert list(changes(load(basic()), load(basic(**keys)))) == lines


def test_secrets_are_not_shown() -> None:
    config = CLIENT_SECRET | FILLED
    before, after = (load(config | {"auth_oauth_client_secret": secret}) for secret in ("first", "second"))
    (line,) = changes(before, after)
    assert line == "auth_oauth_client_secret or auth_oauth_client_credential changed"
    assert PASSWORD not in "".join(changes(load(basic()), load(basic(auth_password="other", auth_user="me"))))


def test_the_order_of_mailboxes_does_not_count() -> None:
    boxes = {f"m{number}@b.c": entry() for number in range(3)}
    turned = dict(reversed(boxes.items()))
    assert changes(load(basic(mailboxes=boxes)), load(basic(mailboxes=turned))) == ()


def test_many_mailboxes_are_counted() -> None:
    boxes = {f"m{number}@b.c": entry() for number in range(500)} | {"a@b.c": entry()}
    (line,) = changes(load(basic()), load(basic(mailboxes=boxes)))
    assert line.startswith("mailboxes added: m0@b.c, m1@b.c, ")
    assert line.endswith(" and 480 more")

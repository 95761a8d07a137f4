"""What `check` says above its table. What it finds out is tested with the real command."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ews_sync.check import Finding, render
from ews_sync.settings.load import load_options, read_config
from tests.settings.examples import PLATFORM, TOKEN, basic

if TYPE_CHECKING:
    from pathlib import Path

REMOTE = PLATFORM | {"remote_config_owner": "bank", "remote_config_key": "ews"}


def test_a_remote_config_is_named() -> None:
    settings = read_config(load_options(REMOTE, TOKEN), TOKEN, json.dumps(basic()).encode())
    lines = render(settings, [Finding(settings.mailboxes[0])]).splitlines()
    assert lines[0] == "config    remote config bank/ews: fine"
    assert lines[2] == "mail to   https://mydomain.reinfer.io/api/"


def test_a_remote_config_that_a_local_one_hides_is_named_too(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(json.dumps(basic()))
    environ = TOKEN | {"REINFER_EWS_CONFIG": str(path)}
    settings = read_config(load_options(REMOTE, environ), environ)
    assert render(settings, []).startswith(
        f"config    config file {path}: fine (the remote config bank/ews is not used: REINFER_EWS_CONFIG wins)\n"
    )


def test_a_shard_says_what_is_its_own() -> None:
    mailboxes = {f"m{number}@b.c": {"bucket": {"owner": "o", "name": "n"}} for number in range(9)}
    arguments = REMOTE | {"shard_name": "ews-2", "total_shards": "5"}
    settings = read_config(load_options(arguments, TOKEN), TOKEN, json.dumps(basic(mailboxes=mailboxes)).encode())
    findings = [Finding(mailbox) for mailbox in settings.mailboxes[:3]]
    assert (
        "ews-2, one of 5 shards (number 2, from 0): 3 of the config's 9 mailboxes"
        in render(settings, findings).splitlines()
    )
    assert "none of the config's 9 mailboxes" in render(settings, [])

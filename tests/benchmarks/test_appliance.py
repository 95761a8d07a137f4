"""The command as the benchmarks run it: its config, what it gets of this environment, and its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.appliance import config_for, into_files, launched
from benchmarks.million import measure
from benchmarks.servers import OWNER

if TYPE_CHECKING:
    from benchmarks.appliance import Appliance

NOWHERE = "http://127.0.0.1:1/EWS/Exchange.asmx"


def environment(running: Appliance) -> dict[str, str]:
    data = Path(f"/proc/{running.process.pid}/environ").read_bytes()
    return dict(one.decode().split("=", 1) for one in data.split(b"\0") if one)


def test_it_gets_its_config_and_no_variable_of_ours_that_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REINFER_EWS_POLL_FREQUENCY", "77")
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1")
    monkeypatch.setenv("LANGUAGE", "stays")
    config = config_for(NOWHERE, ["a@bench.example"], options={"poll_frequency": 9})
    with launched(config, into_files(tmp_path), tmp_path, {"MALLOC_ARENA_MAX": "3"}) as running:
        running.wait_until_listening(60)
        found = environment(running)
        assert running.process.poll() is None
    assert running.process.returncode is not None
    assert {name: found[name] for name in found if name.startswith(("REINFER", "MALLOC"))} == {
        "REINFER_EWS_CONFIG": str(tmp_path / "config.json"),
        "MALLOC_ARENA_MAX": "3",
    }
    assert found["LANGUAGE"] == "stays"
    assert json.loads((tmp_path / "config.json").read_bytes()) == config


def test_it_is_gone_when_the_block_fails(tmp_path: Path) -> None:
    config = config_for(NOWHERE, ["a@bench.example"])
    with pytest.raises(LookupError), launched(config, into_files(tmp_path), tmp_path) as running:
        raise LookupError
    assert running.process.returncode is not None


def test_a_config_has_what_all_share_and_what_is_its_own() -> None:
    config = config_for(
        "http://server/",
        ["a@x", "b@x"],
        bucket="other",
        options={"poll_frequency": 1},
        of_each={"start_from": "bucket"},
    )
    assert config["ews_endpoint"] == "http://server/"
    assert config["poll_frequency"] == 1
    mailbox = {"bucket": {"owner": OWNER, "name": "other"}, "start_from": "bucket"}
    assert config["mailboxes"] == {"a@x": mailbox, "b@x": mailbox}
    assert "poll_frequency" not in config_for("http://server/", [])


def test_a_large_folder_can_be_measured_though_it_be_small() -> None:
    found = measure(200, limit=60)
    assert found.items == 200
    assert found.emails >= 100
    assert found.mark_requests >= 1
    assert 0 <= found.again <= found.emails
    assert found.server > 10
    # What was fetched before the crash is no sign that it fetches again: a process takes longer to start.
    assert found.resume > 0.05

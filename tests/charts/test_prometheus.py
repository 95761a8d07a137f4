"""A real Prometheus reads the demo: it likes the metrics, understands alerts and queries, and finds all to be well."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.charts.programs import ALERTS, needs, program, run
from tests.charts.promql import alerts, queries
from tests.end_to_end.platform_world import COMMAND
from tests.sources.auth.real_peers import free_port, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [needs("prometheus"), needs("promtool")]

PATIENCE = 60.0
OFTEN_EMPTY = {
    "Login renewed for A": "the demo logs in by NTLM",
    "Still to wait A": "nobody is throttled",
    "Dead letters A": "there are none",
    "Folders failing A": "all of them can be read",
    "Shards A": "the demo has none",
    "Backfill A": "it may be over already",
    "Backfill: time left A": "likewise",
    "Requests that fail A": "none may have failed",
}


class World:
    """The demo, and the Prometheus that reads it."""

    def __init__(self, demo: int, prometheus: int) -> None:
        self._demo = f"http://127.0.0.1:{demo}"
        self._prometheus = f"http://127.0.0.1:{prometheus}/api/v1"

    def is_ready(self) -> bool:
        try:
            self.asked("status/runtimeinfo")
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
            return False
        return True

    def metrics(self) -> str:
        return _get(f"{self._demo}/metrics")

    def asked(self, path: str, **parameters: str) -> Any:
        answer = json.loads(_get(f"{self._prometheus}/{path}?{urllib.parse.urlencode(parameters)}"))
        assert answer["status"] == "success"
        return answer["data"]

    def result(self, expression: str) -> list[Any]:
        found: list[Any] = self.asked("query", query=expression)["result"]
        return found

    def until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"not within {PATIENCE:g} s: {what}"
            # Nothing tells when Prometheus has read something.
            time.sleep(0.1)


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - an address of ours
        text: str = answer.read().decode()
        return text


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory: Path = tmp_path_factory.mktemp("prometheus")
    demo, port = free_port(), free_port()
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(ALERTS)],
        "scrape_configs": [{"job_name": "ews-sync", "static_configs": [{"targets": [f"127.0.0.1:{demo}"]}]}],
    }
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    shown = [*COMMAND, "demo", "--bind", f"127.0.0.1:{demo}"]
    prometheus = [
        str(program("prometheus")), f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}", f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    with (
        running([*shown, "--directory", str(directory / "mail"), "--emails", "20"], [demo], directory / "demo.log"),
        running(prometheus, [port], directory / "prometheus.log"),
    ):
        world = World(demo, port)
        world.until(world.is_ready, "Prometheus")
        # Two readings at least, with mail in between, make a rate.
        world.until(
            lambda: bool(
                world.result("min(ews_sync_mailbox_emails_stored_total) > 0 and on () count_over_time(up[1m]) > 3")
            ),
            "the demo's mail in Prometheus",
        )
        yield world


def test_promtool_likes_the_metrics(world: World) -> None:
    result = run("promtool", "check", "metrics", given=world.metrics())
    assert (result.returncode, result.stdout) == (0, "")


def test_alerts_are_looked_at_and_none_fires(world: World) -> None:
    def rules() -> list[Any]:
        return [rule for group in world.asked("rules")["groups"] for rule in group["rules"]]

    world.until(lambda: all(rule["health"] == "ok" for rule in rules()), "every alert looked at")
    assert {rule["name"] for rule in rules()} == alerts().keys()
    assert {rule["name"]: rule["state"] for rule in rules() if rule["state"] == "firing"} == {}


def test_every_query_finds_something(world: World) -> None:
    empty = set()
    for name, query in queries().items():
        expression = query
        for variable in ("namespace", "job", "instance", "mailbox"):
            expression = expression.replace(f'"${variable}"', '".*"')
        if not world.result(expression):
            empty.add(name)
    assert empty - OFTEN_EMPTY.keys() == set()

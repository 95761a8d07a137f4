"""What `helm test` runs in its pod: asks each instance, and says what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from tests.charts.programs import CHART

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SCRIPT = CHART / "files" / "answers.py"
STATUS = json.dumps({"version": "1.2.3", "mailboxes": []})
WELL: dict[str, tuple[int, str]] = {"/healthz": (200, "{}"), "/readyz": (200, "{}"), "/status": (200, STATUS)}


@contextmanager
def instance(answers: Mapping[str, tuple[int, str]]) -> Iterator[str]:
    """Answer like an instance while the block runs; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, text = answers[self.path.partition("?")[0]]
            self.send_response(code)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def asked(*addresses: str) -> subprocess.CompletedProcess[str]:
    """Run it as the pod does: as text behind -c. A proxy is not for it."""
    environment = {"http_proxy": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1"}
    return subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-c", SCRIPT.read_text(encoding="utf-8"), *addresses],
        capture_output=True, text=True, check=False, timeout=60, env=environment,
    )  # fmt: skip


def test_instances_that_are_well() -> None:
    with instance(WELL) as first, instance(WELL) as second:
        result = asked(first, second)
    assert (result.returncode, result.stdout) == (0, f"{first}: well\n{second}: well\n")


def test_one_that_is_not_ready_is_told_with_its_reason() -> None:
    with instance(WELL) as first, instance(WELL | {"/readyz": (503, "no config yet")}) as second:
        result = asked(first, second)
    assert result.returncode == 1
    assert result.stdout == f"{first}: well\n{second}: /readyz 503: no config yet\n"


def test_a_status_that_is_none_is_told() -> None:
    with instance(WELL | {"/status": (200, "<html>")}) as address:
        result = asked(address)
    assert (result.returncode, result.stdout) == (1, f"{address}: /status 200: <html>\n")


def test_one_that_does_not_answer_is_told() -> None:
    with instance(WELL) as address:
        pass
    result = asked(address)
    assert result.returncode == 1
    assert "/healthz : no answer: " in result.stdout

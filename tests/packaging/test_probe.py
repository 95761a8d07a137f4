from __future__ import annotations

import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from ews_sync import probe
from ews_sync.settings.options import BIND

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Healthz(HTTPServer):
    """Answers /healthz with `status` and `body`, as the appliance would."""

    status = 200
    body = b'{"healthy": true}'


class Handler(BaseHTTPRequestHandler):
    server: Healthz

    def do_GET(self) -> None:
        self.send_response(self.server.status if self.path == "/healthz" else 404)
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def healthz() -> Iterator[Healthz]:
    with Healthz(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield server
        server.shutdown()


def probed(*flags: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own command
        [sys.executable, *flags, "-P", "-m", "ews_sync.probe"],
        env={key: value for key, value in os.environ.items() if key != probe.VARIABLE} | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("command", "environ", "address"),
    [
        ([], {}, ("127.0.0.1", 8000)),
        ([], {"REINFER_EWS_BIND": ""}, ("127.0.0.1", 8000)),
        ([], {"REINFER_EWS_BIND": "0.0.0.0:8000"}, ("127.0.0.1", 8000)),
        ([], {"REINFER_EWS_BIND": " 10.0.0.7:81 "}, ("10.0.0.7", 81)),
        (["reinfer-ews", "--bind", "0.0.0.0:9000"], {"REINFER_EWS_BIND": "0.0.0.0:8000"}, ("127.0.0.1", 9000)),
        (["python", "reinfer-ews", "demo", "--bind=[::]:9000", ""], {}, ("::1", 9000)),
        (["reinfer-ews", "--bind", "[::1]:1", "--bind", "localhost:2"], {}, ("localhost", 2)),
    ],
)
def test_it_asks_where_the_appliance_listens(
    command: list[str], environ: dict[str, str], address: tuple[str, int]
) -> None:
    assert probe.address_of(command, environ) == address


@pytest.mark.parametrize("text", ["x", "0.0.0.0:0", "0.0.0.0:", ":70000"])
def test_an_address_that_cannot_be_asked(text: str) -> None:
    with pytest.raises(ValueError, match=r"port|int\(\)"):
        probe.address_of(["reinfer-ews", "--bind", text], {})
    with pytest.raises(ValueError, match=r"int\(\)"):
        probe.address_of(["reinfer-ews", "--bind"], {})


def test_its_words_are_those_of_the_settings() -> None:
    assert (BIND.text, BIND.variable, BIND.default) == (probe.OPTION, probe.VARIABLE, probe.DEFAULT)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (b"/opt/x/bin/python\0/opt/x/bin/reinfer-ews\0--bind\0:1\0", ["--bind", ":1", ""]),
        (b"/sbin/init\0--bind\0:1\0", []),
        (b"", []),
    ],
)
def test_only_the_appliance_is_the_first_process(tmp_path: Path, command: bytes, words: list[str]) -> None:
    path = tmp_path / "cmdline"
    path.write_bytes(command)
    assert probe.first_process(str(path))[2:] == words
    assert probe.first_process(str(tmp_path / "none")) == []


@pytest.mark.parametrize(
    ("answer", "healthy", "line"),
    [
        (b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n{}", True, "healthy"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n{\n  1\n}\n", False, "unhealthy: { 1 }"),
        (b"HTTP/1.1 503\r\n\r\n", False, "unhealthy: it gives no reason"),
        (b"HTTP/1.1 500 X\r\n\r\n" + b"y" * 5000, False, "unhealthy: " + "y" * 1000),
        (b"", False, "unhealthy: what listens there does not speak HTTP"),
        (b"220 mail.example.com 200\r\n", False, "unhealthy: what listens there does not speak HTTP"),
    ],
)
def test_what_an_answer_says(answer: bytes, healthy: bool, line: str) -> None:  # noqa: FBT001 - a case's value
    assert probe.verdict(answer) == (healthy, line)


def test_healthy(healthz: Healthz) -> None:
    found = probed(REINFER_EWS_BIND=f"0.0.0.0:{healthz.server_port}")
    assert (found.returncode, found.stdout, found.stderr) == (0, "healthy\n", "")


def test_unhealthy(healthz: Healthz) -> None:
    healthz.status, healthz.body = 503, b'{\n  "reasons": ["stuck: reading the mailbox"]\n}\n'
    found = probed(REINFER_EWS_BIND=f"0.0.0.0:{healthz.server_port}")
    assert (found.returncode, found.stdout) == (1, 'unhealthy: { "reasons": ["stuck: reading the mailbox"] }\n')


def test_nobody_answers(healthz: Healthz) -> None:
    port = healthz.server_port
    healthz.server_close()
    found = probed(REINFER_EWS_BIND=f"0.0.0.0:{port}")
    assert found.returncode == 1
    assert found.stdout.startswith(f"unhealthy: no answer from 127.0.0.1:{port}: ")


def test_an_answer_without_end_is_not_read_to_its_end(healthz: Healthz) -> None:
    healthz.body = b"x" * (1 << 20)
    assert len(probe.ask("127.0.0.1", healthz.server_port)) < 1 << 18


def test_what_cannot_be_read_is_said() -> None:
    found = probed(REINFER_EWS_BIND="0.0.0.0:eighty")
    assert found.returncode == 1
    assert found.stdout.startswith("unhealthy: --bind or REINFER_EWS_BIND cannot be read: ")
    assert found.stderr == ""


def test_it_imports_next_to_nothing(healthz: Healthz) -> None:
    found = probed("-X", "importtime", REINFER_EWS_BIND=f"0.0.0.0:{healthz.server_port}")
    assert found.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in found.stderr.splitlines()}
    # `site` may load what an editable install brings along, so these are named, and not counted.
    assert not imported & {"argparse", "json", "ssl", "asyncio", "http.client", "urllib.request", "encodings.idna"}
    # The module itself runs as __main__.
    assert [name for name in imported if name.startswith("ews_sync")] == ["ews_sync"]

"""The image, run as its users run it. `.ci/image` builds it and says its name; without that these are skipped.

They run where nothing else listens (a network namespace of its own) and where containers share that network.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ews_sync import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IMAGE = os.environ.get("EWS_SYNC_IMAGE", "")
WITHOUT_SHELL = os.environ.get("EWS_SYNC_IMAGE_WITHOUT_SHELL", "")
BASE = os.environ.get("EWS_SYNC_IMAGE_BASE", "")
pytestmark = pytest.mark.skipif(not IMAGE, reason="no image to run: .ci/image builds one")

LARGEST = 95_000_000
"""Bytes that the image may add to its base."""
RESTRICTED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--memory=128m")
CONFIG = {
    "host": "https://127.0.0.1",
    "port": 9,
    "auth_type": "ntlm",
    "auth_user": "svc@example.com",
    "mailboxes": {"abc@example.com": {"bucket": {"owner": "o", "name": "b"}, "start_from": "bucket"}},
}
PASSWORD = "--env=REINFER_EWS_AUTH_PASS=swordfish"


def podman(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own words
        ["podman", *arguments],  # noqa: S607 - wherever it is installed
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def inspected(image: str) -> Any:
    return json.loads(podman("image", "inspect", image).stdout)[0]


def until(reached: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    # Containers tell nobody when something has happened inside of them.
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, f"not reached in time: {what}"
        time.sleep(0.1)


class Container:
    """A container in the background; `log` is what it has written to both of its streams."""

    def __init__(self, name: str, log: Path, *arguments: str) -> None:
        self.name = name
        with log.open("w") as stream:
            self._process = subprocess.Popen(  # noqa: S603 - our own words
                ["podman", "run", "--name", name, *arguments],  # noqa: S607
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    @property
    def hears_sigterm(self) -> bool:
        """Whether its first process is its own, and holds SIGTERM back or has a handler for it."""
        found = podman("inspect", "--format", "{{.State.Pid}}", self.name).stdout.strip()
        process = Path("/proc") / (found or "0")
        if not process.is_dir() or "reinfer-ews" not in (process / "cmdline").read_text():
            return False
        status = (process / "status").read_text()
        return any(
            int(status.partition(f"{kind}:")[2].split()[0], 16) >> (signal.SIGTERM - 1) & 1
            for kind in ("SigBlk", "SigCgt")
        )

    def health(self) -> int:
        return podman("healthcheck", "run", self.name).returncode

    def says(self, words: str) -> None:
        until(lambda: words in self.log, f"{words!r} in {self._log}")

    def stop(self) -> int:
        """Ask it to end as `docker stop` does, and give its exit code."""
        podman("stop", "--time", "25", self.name)
        return self._process.wait(60)


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Callable[..., Container]]:
    started: list[Container] = []

    def start(*arguments: str) -> Container:
        name = f"ews-sync-test-{os.getpid()}-{len(started)}"
        started.append(Container(name, tmp_path / f"ews_{len(started)}.log", *arguments))
        return started[-1]

    yield start
    for one in started:
        podman("rm", "--force", "--volumes", "--time", "0", one.name)


@pytest.fixture
def local_dir(tmp_path: Path) -> Path:
    """What `$EWS_LOCAL_DIR` is: on the host, with the config in its documented place."""
    for above in (tmp_path, *tmp_path.parents[:2]):
        above.chmod(0o755)
    path = tmp_path / "ews"
    config = path / "config" / "owner" / "key.json"
    config.parent.mkdir(parents=True)
    config.write_text(json.dumps(CONFIG), encoding="utf-8")
    return path


LOCAL_LINE = (
    *("reinfer-ews", "--local-files-prefix", "/mnt/ews"),
    *("--remote-config-owner", "owner", "--remote-config-key", "key"),
)


def test_what_it_says_of_itself() -> None:
    image = inspected(IMAGE)
    config = image["Config"]
    assert config["User"] == "10001:10001"
    assert config["Labels"]["org.opencontainers.image.version"] == __version__
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert config["StopSignal"] == "SIGTERM"
    # A list that does not begin with a shell's name is executed as it is.
    assert config["Entrypoint"][-1].endswith("/reinfer-ews")
    assert image["Healthcheck"]["Test"][0] == "CMD"


def test_its_size() -> None:
    assert inspected(IMAGE)["Size"] - inspected(BASE)["Size"] < LARGEST


def test_nothing_that_only_a_build_needs_is_in_it() -> None:
    program = (
        "import importlib.util, pathlib;"
        "print([name for name in ('pip', 'setuptools', 'hatchling', 'pytest') if importlib.util.find_spec(name)],"
        "[str(path) for path in pathlib.Path('/opt/ews-sync').rglob('*') if path.name in {'__pycache__', 'tests'}"
        " or path.suffix in {'.c', '.h', '.pyx'}])"
    )
    found = podman("run", "--rm", "--entrypoint=/opt/ews-sync/bin/python", IMAGE, "-P", "-c", program)
    assert found.stdout == "[] []\n"


def test_nothing_is_compiled_at_a_start() -> None:
    program = "import sys; from ews_sync import app, assembly, check, demo"
    python = ("--rm", "--env=PYTHONVERBOSE=1", "--entrypoint=/opt/ews-sync/bin/python", IMAGE, "-P", "-c", program)
    loaded = [line for line in podman("run", *python).stderr.splitlines() if line.startswith("# code object from ")]
    assert len(loaded) > 500
    assert [line for line in loaded if "/opt/ews-sync/bytecode/" not in line] == []


@pytest.mark.parametrize("arguments", [["--version"], ["reinfer-ews", "--version"]])
def test_the_commands_name_may_be_left_out(arguments: list[str]) -> None:
    found = podman("run", "--rm", *RESTRICTED, WITHOUT_SHELL, *arguments)
    assert (found.returncode, found.stdout) == (0, f"reinfer-ews {__version__}\n")


@pytest.mark.parametrize("user", ["10001:10001", "4242:77"])
def test_the_demo_without_a_shell_or_rights(container: Callable[..., Container], user: str) -> None:
    demo = container(*RESTRICTED, f"--user={user}", WITHOUT_SHELL, "demo", "--emails", "20", "--bind", "0.0.0.0:8123")
    until(lambda: demo.health() == 0, "healthy")
    demo.says("following")
    assert podman("exec", demo.name, "/bin/sh", "-c", "true").returncode != 0
    assert demo.stop() == 0
    assert "Stopped." in demo.log


def test_the_documented_line_for_the_platform(container: Callable[..., Container], tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "your_ews_config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    appliance = container(
        *("-v", f"{tmp_path}/config:/mnt/config"),
        *("--env", "REINFER_EWS_CONFIG=/mnt/config/your_ews_config.json"),
        *("--env", "REINFER_API_TOKEN=open-sesame"),
        PASSWORD,
        WITHOUT_SHELL,
        *("reinfer-ews", "--reinfer-api-endpoint", "https://127.0.0.1:9/api/"),
    )
    appliance.says('"listening": "http://0.0.0.0:8000"')
    appliance.says("cannot connect to 127.0.0.1:9")
    assert appliance.health() == 0
    assert appliance.stop() == 0
    assert '"stopped"' in appliance.log


def test_the_documented_line_for_local_files(container: Callable[..., Container], local_dir: Path) -> None:
    for path in (local_dir, *local_dir.rglob("*")):
        os.chown(path, 10001, 10001)
    appliance = container("-v", f"{local_dir}:/mnt/ews", PASSWORD, WITHOUT_SHELL, *LOCAL_LINE)
    appliance.says("mailbox failed")
    assert appliance.stop() == 0
    assert (local_dir / "state" / "o" / "b" / "abc@example.com.lock").exists()


def test_a_directory_of_another_user(container: Callable[..., Container], local_dir: Path) -> None:
    os.chown(local_dir, 1000, 1001)
    line = ("-v", f"{local_dir}:/mnt/ews", PASSWORD, WITHOUT_SHELL, *LOCAL_LINE)
    refused = podman("run", "--rm", *line)
    assert (refused.returncode, refused.stdout) == (2, "")
    (said,) = [said for said in refused.stderr.splitlines() if "--local-files-prefix" in said]
    assert "permission denied" in said
    assert "chown -R 10001:10001" in said
    assert "docker run --user 1000:1001" in said
    as_owner = container("--user=1000:1001", *line)
    as_owner.says("mailbox failed")
    assert as_owner.stop() == 0


@pytest.mark.parametrize("round_", range(3))
def test_sigterm_while_it_starts_slowly(container: Callable[..., Container], local_dir: Path, round_: int) -> None:
    # With the processor that Kubernetes grants, Python takes a second to begin.
    os.chown(local_dir, 10001, 10001)
    starting = container("--cpus=0.05", "-v", f"{local_dir}:/mnt/ews", PASSWORD, WITHOUT_SHELL, *LOCAL_LINE)
    until(lambda: starting.hears_sigterm, f"it begins ({round_})")
    assert starting.stop() == 0
    assert "started" not in starting.log

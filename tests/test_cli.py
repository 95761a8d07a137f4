from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from ews_sync import __version__, cli
from ews_sync.errors import ConfigurationError, StorageError
from ews_sync.settings.options import DEMO_ONLY, OPTIONS, VARIABLES
from tests.settings.examples import PASSWORD, basic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ONLY_STANDARD = {"pydantic", "httpx", "lxml", "aiohttp", "msal", "structlog"}


def reinfer_ews(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("REINFER_")}
    return subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-c", "import sys; from ews_sync.cli import main; sys.exit(main())", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=clean | environ,
        timeout=60,
        check=False,
    )


def main(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(arguments)
    found = capsys.readouterr()
    return code, found.out, found.err


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith("REINFER_"):
            monkeypatch.delenv(name)
    # As a process that has begun to run holds it back until the service takes it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_version() -> None:
    found = reinfer_ews("--version")
    assert (found.returncode, found.stdout, found.stderr) == (0, f"reinfer-ews {__version__}\n", "")


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["demo", "--help"], ["--nonsense"]])
def test_what_needs_nothing_loads_nothing(arguments: list[str]) -> None:
    program = (
        "import sys; from ews_sync.cli import main; main(sys.argv[1:]);"
        "print(*(name for name in sys.modules if '.' not in name), file=sys.stderr)"
    )
    found = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    assert ONLY_STANDARD.isdisjoint(found.stderr.splitlines()[-1].split())


def test_help_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = main(capsys, "--help")
    assert (code, err) == (0, "")
    for option in (*OPTIONS, *DEMO_ONLY):
        assert option.text in out
        assert option.variable in out
        assert option.default in out
    for variable in VARIABLES:
        assert variable.name in out
        assert not variable.secret or variable.file in out


def test_help_for_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["demo", "--help"], ["--help", "demo"]):
        _, out, _ = main(capsys, *arguments)
        assert "--emails" in out
        assert "--shard-name" not in out
    _, out, _ = main(capsys, "check", "-h")
    assert "--emails" not in out
    assert "--shard-name" in out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["chek"], 'unknown command "chek"; did you mean check?'),
        (["--bnd", "secret"], "unknown option --bnd; did you mean --bind?"),
        (["--zzz=secret"], "unknown option --zzz"),
        (["--bin", "x"], "unknown option --bin; did you mean --bind?"),
        (["--bind"], "--bind needs a value"),
        (["demo", "--platform=secret"], "--platform takes no value"),
        (["check", "demo"], 'one command at a time: "demo" is one too many'),
        (["--emails", "3"], "--emails is an option of reinfer-ews demo, not of reinfer-ews run"),
        (
            ["demo", "--shard-name", "x"],
            "--shard-name is an option of reinfer-ews and reinfer-ews check, not of reinfer-ews demo",
        ),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], arguments: list[str], line: str) -> None:
    assert main(capsys, *arguments) == (
        2,
        "",
        f"reinfer-ews: {line}\nreinfer-ews: reinfer-ews --help lists commands and options\n",
    )


def test_wrong_configuration(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(basic(poll_frequency=-1, auth_password=[PASSWORD])), encoding="utf-8")
    found = reinfer_ews("--local-files-prefix", str(tmp_path / "out"), "--bind", "x", REINFER_EWS_CONFIG=str(path))
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.splitlines() == [
        "reinfer-ews: configuration: 3 problems",
        '  --bind: must be HOST:PORT, such as "0.0.0.0:8000" or "[::1]:8000", not "x"',
        f"  auth_password: must be a text that is not empty (what was given is not shown) (in config file {path})",
        f"  poll_frequency: must be a number, 0 or more, not -1 (in config file {path})",
    ]
    assert not (tmp_path / "out").exists()


def test_options_before_and_after_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["--bind", "x", "check"],
        ["check", "--bind", "x"],
        ["reinfer-ews", "check", "--bind=x"],
        ["--bind", "y:1", "check", "--bind", "x"],
        ["--bind", "x", "demo"],
        ["demo", "--bind", "x"],
    ):
        code, _, err = main(capsys, *arguments)
        assert code == 2
        assert '--bind: must be HOST:PORT, such as "0.0.0.0:8000" or "[::1]:8000", not "x"' in err


def test_as_documented_but_for_the_placeholder(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = main(
        capsys, "reinfer-ews", "--bind", "0.0.0.0:8000", "--reinfer-api-endpoint", "https://<mydomain>.reinfer.io/api/"
    )
    assert code == 2
    assert "  --reinfer-api-endpoint: still has the placeholder <mydomain>: put your own value there\n" in err


@pytest.mark.parametrize(
    ("failure", "code", "err"),
    [
        (StorageError("the disk\nis full", hint="make room"), 1, "reinfer-ews: the disk\\nis full - make room\n"),
        (ConfigurationError(("a: b",)), 2, "reinfer-ews: configuration: 1 problem\n  a: b\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_exit_codes(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
    code: int,
    err: str,
) -> None:
    def fail(_arguments: object, _environ: object) -> int:
        raise failure

    monkeypatch.setattr(cli, "_run", fail)
    assert main(capsys) == (code, "", err)

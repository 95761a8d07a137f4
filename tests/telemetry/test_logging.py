from __future__ import annotations

import base64
import io
import json
import logging
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import structlog
from hypothesis import given, settings as hypothesis_settings, strategies as st
from pydantic import SecretStr

from ews_sync.errors import ConnectionFailedError
from ews_sync.telemetry.logging import _Handler, configure_logging
from ews_sync.telemetry.redaction import Redactor
from tests.settings.examples import PASSWORD, basic, load

if TYPE_CHECKING:
    from collections.abc import Iterator


class Log:
    """Logging set up to memory."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.redactor = Redactor([PASSWORD])

    def start(self, level: int = 1, *, force_json: bool | None = None) -> None:
        configure_logging(level, stream=self.stream, redactor=self.redactor, force_json=force_json)

    @property
    def handler(self) -> logging.Handler:
        (ours,) = (one for one in logging.getLogger().handlers if isinstance(one, _Handler))
        return ours

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def log() -> Iterator[Log]:
    names = (None, "ews_sync", "httpx", "httpcore", "aiohttp.access")
    levels = {name: logging.getLogger(name).level for name in names}
    found = Log()
    found.start()
    yield found
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    logging.getLogger().removeHandler(found.handler)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def own() -> Any:
    return structlog.stdlib.get_logger("ews_sync.engine")


def test_a_line(log: Log) -> None:
    own().info("round.done", mailbox="a@b.c", emails=3)
    (line,) = log.lines
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "round.done",
        "level": "info",
        "logger": "ews_sync.engine",
        "mailbox": "a@b.c",
        "emails": 3,
    }


@pytest.mark.parametrize("text", ["\x9b31m", "\x7f", "a\u2028b", "\u2029", "\ud800", "\r\nfake"])
def test_what_would_upset_whoever_collects_the_lines_is_escaped(log: Log, text: str) -> None:
    own().info("subject", text=text)
    assert len(log.text.splitlines()) == 1
    log.text.encode()
    assert json.loads(log.text)["text"] == text
    assert log.text.rstrip("\n").isprintable()


def test_the_standard_library_goes_the_same_way(log: Log) -> None:
    logging.getLogger("some.library").warning("%s of %d", "one", 2)
    (line,) = log.lines
    assert (line["event"], line["level"], line["logger"]) == ("one of 2", "warning", "some.library")


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (0, ["own info", "library info"]),
        (1, ["own debug", "own info", "library info"]),
        (2, ["own debug", "own info", "library debug", "library info", "httpx debug", "httpx info"]),
    ],
)
def test_levels(log: Log, level: int, expected: list[str]) -> None:
    log.start(level)
    for name, logger in (("own", "ews_sync.engine"), ("library", "asyncio"), ("httpx", "httpx")):
        logging.getLogger(logger).debug("%s debug", name)
        logging.getLogger(logger).info("%s info", name)
    assert [line["event"] for line in log.lines] == expected
    own().debug("mine")
    assert ("mine" in log.text) == (level >= 1)


def test_setting_up_again_replaces(log: Log) -> None:
    log.start()
    own().info("once")
    assert len(log.lines) == 1


def test_for_a_terminal(log: Log) -> None:
    log.start(force_json=False)
    own().info("hello", who="a\x1b[31m\nb", password=PASSWORD)
    assert "\x1b[" in log.text
    assert "a\\x1b[31m\\nb" in log.text
    assert log.text.count("\n") == 1
    assert PASSWORD not in log.text


def raise_it() -> None:
    try:
        raise OSError(f"no route with {PASSWORD}")  # noqa: TRY301 - what this is for
    except OSError as error:
        raise ConnectionFailedError("cannot connect", hint="look\nat the network") from error


@pytest.mark.parametrize("level", [0, 1, 2])
def test_an_exception_is_one_line(log: Log, level: int) -> None:
    log.start(level)
    for logger in (own(), logging.getLogger("library")):
        try:
            raise_it()
        except ConnectionFailedError:
            logger.exception("failed")
    for line in log.lines:
        assert line["error"] == (
            "ConnectionFailedError: cannot connect - look at the network; caused by OSError: no route with ***"
        )
        assert ("traceback" in line) == (level == 2)
    if level == 2:
        assert log.lines[0]["traceback"][0]["function"] == "raise_it"
    own().error("failed", exc_info=ValueError())
    assert log.lines[-1]["error"] == "ValueError"


@dataclass
class Holder:
    secret: str


@pytest.mark.parametrize(
    "fields",
    [
        {"password": "x7x7x7x7"},
        {"api_token": "x7x7x7x7"},
        {"Authorization": "Bearer x7x7x7x7"},
        {"headers": {"Set-Cookie": "x7x7x7x7"}},
        {"private_key": "x7x7x7x7"},
        {"client_assertion": "x7x7x7x7"},
        {"nested": [{"deep": {"auth_pass": "x7x7x7x7"}}]},
        {"value": SecretStr("x7x7x7x7")},
        {"holder": Holder("x7x7x7x7")},
        {"url": "https://user:x7x7x7x7@a.b/c"},
        {"note": "sent Authorization: Basic x7x7x7x7"},
        {"note": "grant_type=client_credentials&client_secret=x7x7x7x7&scope=s"},
        {"note": '{"access_token": "x7x7x7x7"}'},
        {"note": "(b'Set-Cookie', b'x7x7x7x7')"},
        {"note": "-----BEGIN PRIVATE KEY-----\nx7x7x7x7\n-----END PRIVATE KEY-----"},
        {"data": b"x7x7x7x7"},
        {"some": [bytearray(b"x7x7x7x7")]},
        {"mime": "x7x7x7x7"},
        {"mime_content": "x7x7x7x7"},
        {"body": "x7x7x7x7"},
        {"subject": "x7x7x7x7"},
        {"email": {"body_html": "x7x7x7x7"}},
    ],
)
@pytest.mark.parametrize("force_json", [True, False])
def test_what_never_shows(log: Log, fields: dict[str, object], force_json: bool) -> None:  # noqa: FBT001 - a column
    log.start(2, force_json=force_json)
    own().info("event", **fields)
    logging.getLogger("library").info("said %s", fields.get("note", ""))
    assert log.text.count("\n") == 2
    assert "x7x7x7x7" not in log.text


def test_bytes_are_a_length(log: Log) -> None:
    own().info("event", data=b"12345")
    assert log.lines[0]["data"] == "<5 bytes>"


def test_what_still_shows(log: Log) -> None:
    fields = {"mailbox": "a@b.c", "body_bytes": 12, "token": None, "path": ["Inbox", "x"], "folder": "Basic training"}
    own().info("event", **fields)
    assert {key: log.lines[0][key] for key in fields} == fields


@hypothesis_settings(max_examples=80, deadline=None)
@given(secret=st.text(st.characters(codec="utf-8"), min_size=6).filter(lambda text: len(text.strip()) >= 6))
def test_a_registered_secret_shows_nowhere(secret: str) -> None:
    redactor = Redactor()
    redactor.register_login("user", secret)
    for form in (
        secret,
        f"before{secret}after",
        quote(secret, safe=""),
        base64.b64encode(f"user:{secret}".encode()).decode(),
    ):
        text = json.dumps(redactor.value({"a": [form], form: "b", "error": ValueError(form)}), ensure_ascii=False)
        assert form not in json.loads(text)["a"][0]
        assert json.dumps(form, ensure_ascii=False)[1:-1] not in text.replace("***", "")


def test_secrets_can_be_added_later(log: Log) -> None:
    log.redactor.register_secrets([SecretStr("later-on")])
    own().info("event later-on", key="xlater-onx")
    assert "later-on" not in log.text


def test_a_redactor_of_settings() -> None:
    redactor = Redactor.of(load(basic()))
    login = base64.b64encode(f"service:{PASSWORD}".encode()).decode()
    assert redactor.text(f"{PASSWORD} token-0123456789 {login}") == "*** *** ***"


def test_a_short_secret_does_not_riddle_the_log() -> None:
    assert Redactor(["in"]).text("in the beginning") == "*** the beginning"


def test_a_line_that_cannot_be_formatted(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    # Straight to the handler: pytest's own would raise.
    log.handler.handle(logging.LogRecord("library", logging.INFO, "", 0, "%d", (PASSWORD,), None))
    assert log.text == "a log line of library could not be written\n"
    assert capsys.readouterr() == ("", "")


def test_warnings_are_logged(log: Log) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(f"careful with {PASSWORD}", stacklevel=1)
    logging.captureWarnings(capture=False)
    assert PASSWORD not in log.text


def test_the_secrets_of_a_config_that_comes_later_are_masked_too(log: Log) -> None:
    log.redactor.register(load(basic(auth_password="first-secret")))
    log.redactor.register(load(basic(auth_password="second-secret", auth_user="me")))
    login = base64.b64encode(b"me:second-secret").decode()
    own().info(f"first-secret, second-secret and {login}")
    (line,) = log.lines
    assert line["event"] == "***, *** and ***"

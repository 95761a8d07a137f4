"""The config in force: the first load, looking again, and what is said of it. Under a virtual clock."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from ews_sync.config_watch import LOOK_EVERY, ConfigWatch, Told, wait_after, worth_telling
from ews_sync.errors import Asks, ConfigurationError, EwsSyncError, SinkError
from ews_sync.settings.exchange import BasicAuth
from ews_sync.settings.load import load_options, read_config
from ews_sync.telemetry.status import Status
from tests.engine.virtual_time import START, VirtualClock, run, until_idle
from tests.settings.examples import PLATFORM, TOKEN, basic, load

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from ews_sync.settings.values import RunOptions, Settings

REMOTE = {"remote_config_owner": "bank", "remote_config_key": "ews"}
OUTAGE = SinkError("the platform does not answer", code="HTTP 503")
REFUSED = SinkError("the platform refuses the token", asks=Asks.STOP, code="HTTP 401", hint="check REINFER_API_TOKEN")
WRONG = ConfigurationError(("host: missing", "mailboxes: missing"))


class Platform:
    """What is loaded: the config, or the error in its place; and when that was."""

    def __init__(self, *answers: Settings | Exception) -> None:
        self.answers = list(answers)
        self.times: list[float] = []
        self.hold: asyncio.Event | None = None

    async def load(self) -> Settings:
        self.times.append(asyncio.get_running_loop().time())
        if self.hold is not None:
            await self.hold.wait()
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Watched:
    """A watch under test, with its status, its log, and what it reported as changed."""

    def __init__(self, platform: Platform, start: RunOptions) -> None:
        self.platform = platform
        self.status = Status("test", START)
        self.changed: list[float] = []
        self.watch = ConfigWatch(start, platform.load, self.status, VirtualClock(), jitter=lambda: 0.5)
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self._task = asyncio.create_task(self.watch.run(self._heard))

    async def end(self) -> None:
        assert self._task is not None
        assert not self._task.done(), "it ended by itself"
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _heard(self) -> None:
        self.changed.append(asyncio.get_running_loop().time())


def remote(**environ: str) -> RunOptions:
    return load_options(PLATFORM | REMOTE, TOKEN | environ)


def remote_settings(*without: str, **keys: Any) -> Settings:

    return read_config(remote(), TOKEN, json.dumps(basic(*without, **keys)).encode())


def events(lines: list[MutableMapping[str, Any]]) -> list[str]:
    return [f"{line['log_level']}: {line['event']}" for line in lines]


# --- Decisions -------------------------------------------------------------------------------------------------------


def test_a_trouble_is_told_when_it_is_new_and_now_and_then() -> None:
    told = Told("x", 100.0)
    assert worth_telling(None, "x", 100)
    assert worth_telling(told, "y", 101)
    assert not worth_telling(told, "x", 699)
    assert worth_telling(told, "x", 700)


@pytest.mark.parametrize(
    ("error", "wait"),
    [
        (OUTAGE, 10.0),
        (REFUSED, 10.0),
        (SinkError("busy", retry_after=60.0), 60.0),
        (SinkError("busy", retry_after=1.0), 10.0),
        (WRONG, LOOK_EVERY),
    ],
)
def test_how_long_to_wait(error: EwsSyncError, wait: float) -> None:
    assert wait_after(error, 10.0) == wait


# --- The first time --------------------------------------------------------------------------------------------------


def test_an_outage_at_the_start_is_waited_out_with_growing_waits_and_told_at_intervals() -> None:
    platform = Platform(*[OUTAGE] * 10, remote_settings())

    async def story() -> None:
        watched = Watched(platform, remote())
        assert (watched.status.config_source, watched.status.config_missing) == ("remote config bank/ews", True)
        loading = asyncio.create_task(watched.watch.load_first())
        await until_idle()
        failure = watched.status.config_failure
        assert failure is not None
        assert (failure.reason, failure.since) == (OUTAGE.summary, START)
        await loading
        assert watched.watch.settings == remote_settings()
        status = watched.status
        assert (status.config_missing, status.config_failure) == (False, None)
        assert status.config_loaded_at == VirtualClock().now()

    with capture_logs() as lines:
        run(story())
    waits = [after - before for before, after in zip(platform.times, platform.times[1:], strict=False)]
    assert waits == pytest.approx([5 / 6 * wait for wait in (5, 10, 20, 40, 80, 160, 300, 300, 300, 300)])
    told = events(lines)
    assert told[-1] == "info: the config is well again"
    assert told.count("warning: there is no config to begin with yet") == len(told) - 1
    assert 2 <= len(told) - 1 <= 4, told


def test_retry_after_is_honoured_at_the_start() -> None:
    platform = Platform(SinkError("busy", retry_after=1234.0), remote_settings())

    async def story() -> None:
        await Watched(platform, remote()).watch.load_first()

    run(story())
    assert platform.times == pytest.approx([0, 1234])


@pytest.mark.parametrize("error", [REFUSED, WRONG])
def test_what_an_operator_must_act_on_ends_the_start(error: EwsSyncError) -> None:
    async def story() -> None:
        with pytest.raises(type(error)) as caught:
            await Watched(Platform(error), remote()).watch.load_first()
        assert caught.value is error

    with capture_logs() as lines:
        run(story())
    assert events(lines) == ["error: cannot begin"]


@pytest.mark.parametrize(("error", "again"), [(REFUSED, 5 * 5 / 6), (WRONG, LOOK_EVERY)])
def test_with_restarts_even_that_is_tried_again(error: EwsSyncError, again: float) -> None:
    platform = Platform(error, remote_settings())

    async def story() -> None:
        await Watched(platform, remote(REINFER_EWS_RESTART_ON_UNRECOVERABLE_ERRORS="true")).watch.load_first()

    with capture_logs() as lines:
        run(story())
    assert platform.times == pytest.approx([0, again])
    if error is WRONG:
        assert lines[0]["log_level"] == "error"
        assert lines[0]["problems"] == list(WRONG.problems)


def test_whoever_asks_during_the_start_need_not_wait() -> None:
    platform = Platform(SinkError("busy", retry_after=9999.0), remote_settings())

    async def story() -> None:
        watched = Watched(platform, remote())
        loading = asyncio.create_task(watched.watch.load_first())
        await until_idle()
        watched.watch.ask()
        await loading

    run(story())
    assert platform.times == [0, 0]


def test_a_defect_in_loading_is_no_end() -> None:
    platform = Platform(KeyError("oops"), remote_settings())

    async def story() -> None:
        await Watched(platform, remote()).watch.load_first()

    with capture_logs() as lines:
        run(story())
    assert events(lines)[0].startswith("error: a defect in ews-sync")


# --- Later -----------------------------------------------------------------------------------------------------------


def looks(
    *answers: Settings | Exception, until: float, check: Callable[[Watched], None], start: RunOptions | None = None
) -> list[MutableMapping[str, Any]]:
    """Let time pass over a watch that begins with a config, check what came of it, and give the log."""

    async def story() -> None:
        watched = Watched(Platform(*answers), start or remote_settings())
        watched.begin()
        await asyncio.sleep(until)
        check(watched)
        await watched.end()

    with capture_logs() as lines:
        run(story())
    return lines


def test_a_remote_config_is_looked_at_every_five_minutes_and_nothing_is_said_when_it_is_the_same() -> None:
    def check(watched: Watched) -> None:
        assert watched.platform.times == pytest.approx([300, 600, 900])
        assert watched.changed == []
        assert watched.status.config_loaded_at == START
        assert watched.status.config_checked_at is not None
        assert (watched.status.config_checked_at - START).total_seconds() == pytest.approx(900)

    assert looks(remote_settings(), until=1000, check=check) == []


def test_a_changed_one_is_put_in_force_and_said_in_words_without_secrets() -> None:
    changed = remote_settings(auth_password="a new secret", poll_frequency=60)

    def check(watched: Watched) -> None:
        assert watched.changed == pytest.approx([600])
        assert watched.watch.settings == changed
        assert watched.status.config_loaded_at is not None
        assert (watched.status.config_loaded_at - START).total_seconds() == pytest.approx(600)

    (line,) = looks(remote_settings(), changed, until=1000, check=check)
    assert line["changes"] == ["auth_password changed", "poll_frequency: 15 -> 60"]
    assert "a new secret" not in str(line)


def test_a_wrong_one_is_reported_with_every_problem_and_the_old_one_stays_until_a_right_one_comes() -> None:
    def check_wrong(watched: Watched) -> None:
        assert watched.changed == []
        assert watched.watch.settings == remote_settings()
        failure = watched.status.config_failure
        assert failure is not None
        assert failure.reason == "host: missing; mailboxes: missing"
        assert (failure.since - START).total_seconds() == pytest.approx(300), "since when it has been wrong"

    lines = looks(WRONG, until=1600, check=check_wrong)
    assert events(lines) == ["error: the config is wrong: the one before stays in force"] * 3, "at intervals"
    assert lines[0]["problems"] == list(WRONG.problems)

    def check_mended(watched: Watched) -> None:
        assert watched.status.config_failure is None
        assert watched.changed == []

    lines = looks(WRONG, remote_settings(), until=700, check=check_mended)
    assert events(lines)[1:] == ["info: the config is well again"]


def test_one_that_cannot_be_fetched_never_restarts_anything() -> None:
    def check(watched: Watched) -> None:
        assert watched.changed == []
        assert watched.watch.settings == remote_settings()
        assert watched.status.config_failure is not None
        assert watched.platform.times == pytest.approx([300, 600, 1800])

    busy = SinkError("busy", retry_after=1200.0)
    lines = looks(REFUSED, busy, OUTAGE, until=2000, check=check)
    assert events(lines) == ["warning: the config in force stays, since it could not be looked at again"] * 3


def test_a_defect_while_looking_leaves_the_watch_alive() -> None:
    def check(watched: Watched) -> None:
        assert watched.changed == pytest.approx([600])

    looks(KeyError("oops"), remote_settings(port=81), until=700, check=check)


def test_a_local_config_is_looked_at_when_asked_only() -> None:
    async def story() -> None:
        watched = Watched(Platform(load(basic())), load(basic()))
        watched.begin()
        await asyncio.sleep(10_000)
        assert watched.platform.times == []
        watched.watch.ask()
        watched.watch.ask()
        await until_idle()
        assert watched.platform.times == [10_000], "asking twice at once is asking once"
        await watched.end()

    with capture_logs() as lines:
        run(story())
    assert events(lines) == ["info: the config is unchanged: there is nothing to do"]


def test_whoever_asks_while_a_look_is_going_on_gets_a_fresh_one() -> None:
    changed = load(basic(port=81))

    async def story() -> None:
        platform = Platform(load(basic()), changed)
        platform.hold = asyncio.Event()
        watched = Watched(platform, load(basic()))
        watched.begin()
        watched.watch.ask()
        await until_idle()
        watched.watch.ask()
        platform.hold.set()
        await until_idle()
        assert (len(platform.times), len(watched.changed)) == (2, 1)
        assert watched.watch.settings == changed
        await watched.end()

    run(story())


def test_whoever_asks_hears_of_a_trouble_that_was_told_already() -> None:
    async def story() -> None:
        watched = Watched(Platform(WRONG), load(basic()))
        watched.begin()
        for _ in range(2):
            watched.watch.ask()
            await until_idle()
        await watched.end()

    with capture_logs() as lines:
        run(story())
    assert events(lines) == ["error: the config is wrong: the one before stays in force"] * 2


def test_secrets_count_as_changes() -> None:
    async def story() -> None:
        watched = Watched(Platform(load(basic(auth_password="other"))), load(basic()))
        assert await watched.watch.look()
        assert watched.watch.settings is not None
        auth = watched.watch.settings.exchange.auth
        assert isinstance(auth, BasicAuth)
        assert auth.password.get_secret_value() == "other"
        assert not await watched.watch.look()

    run(story())

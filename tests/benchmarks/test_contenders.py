"""Each contender does its work, on a little mail; and what has not arrived is noticed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from benchmarks.contenders import Contest, ExchangelibSettings, FloorSettings
from benchmarks.messages import message_id
from benchmarks.servers import BUCKET, OWNER, Load, servers
from benchmarks.stored import compare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LOAD = Load(mailboxes=2, messages=12, size=2_000)


@pytest.fixture(scope="module")
def contest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Contest]:
    directory = tmp_path_factory.mktemp("contest")
    with servers(LOAD, directory) as both:
        yield Contest(LOAD, both, directory, limit=60)


def test_the_floor_moves_all_of_it(contest: Contest) -> None:
    run = contest.floor(FloorSettings(batch=5, lanes=2))
    assert run.rate > 0
    assert run.processor > 0
    assert run.peak > 10


def test_exchangelib_moves_all_of_it_both_ways(contest: Contest) -> None:
    assert contest.exchangelib().rate > 0
    assert contest.exchangelib(ExchangelibSettings(threads=3, chunk=5)).rate > 0


@pytest.mark.parametrize("sink", ["jsonl", "eml", "platform"])
def test_the_command_stores_all_of_it(contest: Contest, sink: str) -> None:
    run = contest.ours(sink)
    assert run.rate > 0
    assert run.processor > 0
    assert run.at_once >= 1


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda lines: lines, None),
        (lambda lines: lines[1:], "11 emails are stored 11 times"),
        (lambda lines: [*lines, lines[0]], "12 emails are stored 13 times"),
        (lambda lines: [*lines[1:], lines[0].replace("<0.", "<99.")], "there is no such email"),
        (lambda lines: [lines[0].replace("lazy", "mad"), *lines[1:]], "not stored as it was"),
    ],
)
def test_what_is_missing_or_changed_or_there_twice_is_noticed(
    tmp_path: Path, change: Callable[[list[str]], list[str]], problem: str | None
) -> None:
    for address in LOAD.addresses():
        lines = [
            json.dumps({"id": message_id(address, number), "mime_content": LOAD.message(address, number).decode()})
            for number in range(LOAD.messages)
        ]
        directory = tmp_path / "files" / "data" / OWNER / BUCKET / address
        directory.mkdir(parents=True)
        (directory / "emails-1.jsonl").write_text("".join(f"{line}\n" for line in change(lines)))
    if problem is None:
        compare(LOAD, "jsonl", tmp_path, with_content=True)
    else:
        with pytest.raises(SystemExit, match=problem):
            compare(LOAD, "jsonl", tmp_path, with_content=True)

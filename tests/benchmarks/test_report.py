from __future__ import annotations

import re
import socket

import pytest

from benchmarks.alone import on_paper
from benchmarks.contenders import Run
from benchmarks.contests import Row, _figures, _ratio, _rounds
from benchmarks.quiet import QuietFigures
from benchmarks.report import Goal, Table, figure, machine, markdown, text, with_section


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (None, "-"),
        (0, "0"),
        (0.0004, "0.000"),
        (0.1349, "0.135"),
        (1.7, "1.70"),
        (15.0, "15"),
        (15.26, "15.3"),
        (128, "128"),
        (7312.4, "7,312"),
        (1_000_000, "1,000,000"),
        (-2.5, "-2.50"),
    ],
)
def test_figures_have_three_digits_and_never_lose_a_larger_one(number: float | None, written: str) -> None:
    assert figure(number) == written


@pytest.mark.parametrize(
    ("found", "bound", "at_most", "verdict"),
    [
        (15.0, 15, False, "met"),
        (14.99, 15, False, "not met"),
        (128.0, 128, True, "met"),
        (128.1, 128, True, "not met"),
        (None, 15, False, "not measured"),
    ],
)
def test_a_goal_is_met_at_its_bound(found: float | None, bound: float, at_most: bool, verdict: str) -> None:  # noqa: FBT001
    goal = Goal("it", found, bound, at_most=at_most)
    assert goal.cells()[-1] == verdict
    assert goal.is_met == (verdict == "met")


TABLE = Table("Title", ("", "emails/s"), [("floor", "7,000"), ("a|b", "12")], [Goal("much", 2, 1)], ["A note."])


def test_a_table_for_a_terminal_is_aligned() -> None:
    assert text(TABLE).split("\n\n")[1].splitlines() == [
        "       emails/s",
        "floor     7,000",
        "a|b          12",
    ]


def test_a_table_for_a_page_has_its_goals_and_notes() -> None:
    found = markdown(TABLE)
    assert "| floor | 7,000 |\n| a\\|b | 12 |" in found
    assert "| much | ≥ 1 | 2 | met |" in found
    assert found.startswith("**Title**\n\n|  | emails/s |\n| --- | ---: |\n")
    assert found.endswith("\n\nA note.")


def test_only_its_own_section_of_a_page_is_made_anew() -> None:
    page = "a\n<!-- measured: one -->\nold\n<!-- end of one -->\nb\n<!-- measured: two -->\n<!-- end of two -->\n"
    once = with_section(page, "one", "new")
    assert once == page.replace("\nold\n", "\n\nnew\n\n")
    assert with_section(once, "one", "new") == once
    with pytest.raises(LookupError):
        with_section(page, "three", "new")


def test_the_machine_is_described_and_not_named() -> None:
    found = machine()
    assert re.search(r"\d+ cores? of ", found)
    assert "GiB" in found
    assert socket.gethostname() not in found.split()


def run(rate: float, processor: float = 1.0) -> Run:
    return Run(rate, processor, 0.1, 80.0, 1)


def test_ratios_are_those_of_the_medians() -> None:
    rows = {"floor": Row((run(100, 1), run(300, 3), run(200, 2))), "ours": Row((run(100, 4),)), "gone": Row(())}
    assert _ratio(rows, "rate", "ours", "floor") == 0.5
    assert _ratio(rows, "rate", "gone", "floor") is None
    assert _ratio(rows, "rate", "ours", "gone") is None
    columns, lines = _figures(rows, {"x floor": "floor"}, "floor")
    assert columns[:5] == ("", "emails/s", "x floor", "ms/email", "ms x floor")
    assert lines[1][:5] == ["ours", "100", "0.500", "4", "2"]
    assert set(lines[2][1:]) == {"-"}


def test_rounds_alternate_and_one_that_fails_does_not_take_the_others_with_it() -> None:
    order = []

    def contender(name: str, *, fails: bool = False) -> Run:
        order.append(name)
        if fails:
            raise SystemExit("it is broken")
        return run(1)

    rows = _rounds({"a": lambda: contender("a", fails=True), "b": lambda: contender("b")}, 2)
    assert order == ["a", "b", "a", "b"]
    assert len(rows["b"].runs) == 2
    assert rows["a"] == Row((), ("SystemExit: it is broken",) * 2)


def quiet(mailboxes: int, processor: float, peak: float) -> QuietFigures:
    return QuietFigures(mailboxes, 4.0, 0.02, processor, 1.0, 0, 20, peak, peak)


@pytest.mark.parametrize(
    ("processor", "peak", "first"),
    [
        # 50,000 looks in 15 s at 1.5 ms are 5 cores: half a core carries 5,000 mailboxes, 48 MiB more carry 2,400 more.
        (1.5, 116.0, ("15", "5,000", "2,600", "20", "5", "3,333")),
        # With 3 ms the processor is what binds.
        (3.0, 116.0, ("15", "2,500", "2,600", "20", "10", "3,333")),
        # Memory that does not grow does not bind.
        (1.5, 80.0, ("15", "5,000", "50,000", "10", "5", "3,333")),
    ],
)
def test_on_paper_what_binds_first_says_how_many_shards(processor: float, peak: float, first: tuple[str, ...]) -> None:
    table = on_paper(quiet(200, 1.5, 80.0), quiet(2000, processor, peak))
    assert table.rows[0] == first
    assert [row[0] for row in table.rows] == ["15", "30", "60"]

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import example, given, strategies as st

from ews_sync.errors import ConfigurationError
from ews_sync.model import Bucket, Mailbox
from ews_sync.settings.load import settings_from
from ews_sync.sinks.paths import LONGEST_COMPONENT, data_directory, email_stem, original, safe_parts, state_file
from tests.fuzz.names import NAMES


@given(NAMES)
@example("")
@example("%")
@example(".")
@example("..")
@example("." * 1000)
@example("/" * 1000)
@example("a" * 199)
@example("a" * 200)
@example("a" * 198 + ".b")
@example("a" * 199 + ".b")
@example("\ud83d\ude00")
@example("\U0001f525" * 10_000)
@example("a" * 198 + ".")
@example("con." + "a" * 195)
def test_any_name_becomes_safe_components_and_comes_back(name: str) -> None:
    parts = safe_parts(name)
    assert parts
    for part in parts:
        assert part
        assert part.isascii()
        assert part.isprintable()
        assert not part.startswith(".")
        assert not part.endswith((".", " "))
        assert len(part) <= LONGEST_COMPONENT
        assert part.partition(".")[0].casefold() not in DEVICES
        assert not set(part) & set('/\\: *?"<>|')
    assert all(part.endswith("~") for part in parts[:-1])
    assert not parts[-1].endswith("~")
    assert original(parts) == name


@given(NAMES, NAMES)
def test_names_never_collide(one: str, other: str) -> None:
    assert (safe_parts(one) == safe_parts(other)) == (one == other)
    # Nor where upper and lower case are the same, unless that is all by which they differ.
    same = [part.lower() for part in safe_parts(one)] == [part.lower() for part in safe_parts(other)]
    assert not same or one.casefold() == other.casefold()


@pytest.mark.parametrize("name", ["abc@example.com", "project-name", "a_b.c+d@x-y.org", "A1"])
def test_plain_names_stay_as_they_are(name: str) -> None:
    assert safe_parts(name) == (name,)


@pytest.mark.parametrize("parts", [("a~",), ("%zz",), ("%e9",), (".a",), ("",), ("a", "b"), ("%C3",), ("é",), ("%61",)])
def test_what_no_name_became_is_refused(parts: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r".*"):
        original(parts)


DEVICES = {"con", "prn", "aux", "nul"} | {f"{name}{number}" for name in ("com", "lpt") for number in range(10)}


def test_what_windows_would_take_for_something_else_is_encoded() -> None:
    assert [safe_parts(name) for name in ("con", "NUL.x", "a.", "com", "console")] == [
        ("%63on",), ("%4EUL.x",), ("a%2E",), ("com",), ("console",),
    ]  # fmt: skip


@given(st.lists(st.tuples(NAMES, NAMES, NAMES), min_size=2, max_size=2, unique=True))
def test_mailboxes_never_share_a_path_nor_lie_in_one_another(names: list[tuple[str, str, str]]) -> None:
    prefix = Path("p")
    one, other = (Mailbox(address, Bucket(owner, bucket)) for owner, bucket, address in names)
    assert not data_directory(prefix, one).is_relative_to(data_directory(prefix, other))
    files = [state_file(prefix, mailbox, end) for mailbox in (one, other) for end in (".json", ".lock", ".json.bak")]
    assert len(set(files)) == len(files)
    assert all(len(part) < 255 for file in files for part in file.parts)


def accepted(*mailboxes: tuple[str, str, str]) -> tuple[Mailbox, ...]:
    """Those mailboxes, as the config gives them; none when it does not take them."""
    config = {
        "host": "mail.example.com", "auth_type": "ntlm", "auth_user": "u", "auth_password": "p",
        "mailboxes": {address: {"bucket": {"owner": owner, "name": name}} for owner, name, address in mailboxes},
    }  # fmt: skip
    try:
        return settings_from(config, {"local_files_prefix": "/p"}).mailboxes
    except ConfigurationError:
        return ()


ADDRESSES = st.tuples(NAMES, st.sampled_from(["x", "X", "example.com", "."])).map("@".join)


@given(st.lists(st.tuples(NAMES, NAMES, ADDRESSES), min_size=2, max_size=2))
@example([("A", "b", "m@x"), ("a", "b", "n@x")])
def test_mailboxes_of_a_config_never_meet_even_where_case_does_not_count(names: list[tuple[str, str, str]]) -> None:
    files = [
        str(state_file(Path("p"), mailbox, end)).lower()
        for mailbox in accepted(*names)
        for end in (".json", ".lock", ".json.bak")
    ]
    assert len(set(files)) == len(files)


@pytest.mark.parametrize("letter", ["a", "\u00e9", "\u65e5", "\U0001f525"])
def test_the_longest_names_that_a_config_takes_fit_into_a_path(letter: str, tmp_path: Path) -> None:
    size = len(letter.encode())
    (mailbox,) = accepted((letter * (250 // size), letter * (250 // size), letter * (318 // size) + "@x"))
    stem = email_stem(data_directory(tmp_path, mailbox), "<1@x>", datetime(2026, 1, 1, tzinfo=UTC))
    assert len(str(stem)) < 4096 - 1024, "there must be room for the directory that is given"
    stem.parent.mkdir(parents=True)
    stem.with_suffix(".json").touch()
    lock = state_file(tmp_path, mailbox, ".json.bak")
    lock.parent.mkdir(parents=True)
    lock.touch()


@pytest.mark.parametrize(
    "names",
    [("o" * 251, "n", "m@x"), ("o", "\u65e5" * 84, "m@x"), ("o", "n", "\u00e9" * 160 + "@x"), ("o\n", "a\x1b", "m@x")],
)
def test_names_that_would_not_fit_are_refused_by_the_config(names: tuple[str, str, str]) -> None:
    assert accepted(names) == ()


@given(NAMES, NAMES)
def test_an_emails_files_stay_in_their_directory_whatever_its_id(one: str, other: str) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    stems = [email_stem(Path("d"), name, moment) for name in (one, other)]
    assert (stems[0] == stems[1]) == (one == other)
    for stem in stems:
        assert re.fullmatch(r"d/2026/01/[0-9a-f]{32}", str(stem))

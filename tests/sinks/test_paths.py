from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, strategies as st

from ews_sync.model import Bucket, Mailbox
from ews_sync.sinks.paths import data_directory, original, safe_parts, state_file

# All of Unicode, lone surrogates included.
NAMES = st.text(st.characters(codec=None), max_size=300) | st.text(st.sampled_from("./\\~%a\0 .2E"), max_size=700)


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
def test_any_name_becomes_safe_components_and_comes_back(name: str) -> None:
    parts = safe_parts(name)
    assert parts
    for part in parts:
        assert part
        assert part.isascii()
        assert part.isprintable()
        assert not part.startswith(".")
        assert len(part) <= 200
        assert not set(part) & set('/\\: *?"<>|')
    assert all(part.endswith("~") for part in parts[:-1])
    assert not parts[-1].endswith("~")
    assert original(parts) == name


@given(NAMES, NAMES)
def test_names_never_collide(one: str, other: str) -> None:
    assert (safe_parts(one) == safe_parts(other)) == (one == other)


@pytest.mark.parametrize("name", ["abc@example.com", "project-name", "a_b.c+d@x-y.org", "A1"])
def test_plain_names_stay_as_they_are(name: str) -> None:
    assert safe_parts(name) == (name,)


@pytest.mark.parametrize("parts", [("a~",), ("%zz",), ("%e9",), (".a",), ("",), ("a", "b"), ("%C3",), ("é",), ("%61",)])
def test_what_no_name_became_is_refused(parts: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r".*"):
        original(parts)


@given(st.lists(st.tuples(NAMES, NAMES, NAMES), min_size=2, max_size=2, unique=True))
def test_mailboxes_never_share_a_path_nor_lie_in_one_another(names: list[tuple[str, str, str]]) -> None:
    prefix = Path("p")
    one, other = (Mailbox(address, Bucket(owner, bucket)) for owner, bucket, address in names)
    assert not data_directory(prefix, one).is_relative_to(data_directory(prefix, other))
    files = [state_file(prefix, mailbox, end) for mailbox in (one, other) for end in (".json", ".lock", ".json.bak")]
    assert len(set(files)) == len(files)
    assert all(len(part) < 255 for file in files for part in file.parts)

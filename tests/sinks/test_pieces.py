from __future__ import annotations

from hypothesis import given, strategies as st

from ews_sync.sinks.pieces import cut, gathered


@given(st.lists(st.binary(max_size=8)), st.integers(1, 20))
def test_pieces_are_put_together_until_there_is_enough_and_no_further(pieces: list[bytes], enough: int) -> None:
    blocks = list(gathered(pieces, enough))
    assert b"".join(blocks) == b"".join(pieces)
    assert all(blocks)
    longest = max(map(len, pieces), default=0)
    assert all(enough <= len(block) < enough + longest for block in blocks[:-1])


@given(st.binary(), st.integers(1, 20))
def test_what_is_cut_is_the_same_and_no_piece_too_long(data: bytes, longest: int) -> None:
    pieces = list(cut(data, longest))
    assert b"".join(pieces) == data
    assert all(0 < len(piece) <= longest for piece in pieces)


def test_what_is_short_enough_is_not_copied() -> None:
    data = bytes(range(10))
    assert next(cut(data, 10)) is data

"""What text a message becomes; Python's own email parser is the independent reader."""

from __future__ import annotations

import email
from email.header import decode_header

import pytest
from hypothesis import example, given, strategies as st

from ews_sync.model import MimeBytes
from ews_sync.sinks.mime_text import mime_pieces, mime_text
from tests.sinks.messages import BODIES, Part, entities, parts_of


def same_parts(data: bytes) -> str:
    text = mime_text(data)
    assert "\N{REPLACEMENT CHARACTER}" not in text
    assert parts_of(text.encode()) == parts_of(data)
    return text


# --- Messages that are Unicode already -------------------------------------------------------------------------------


@given(st.text() | st.text().map("\N{ZERO WIDTH NO-BREAK SPACE}{}".format))
def test_valid_utf8_goes_byte_for_byte(text: str) -> None:
    assert mime_text(text.encode()).encode() == text.encode()


# --- Bodies ----------------------------------------------------------------------------------------------------------


def test_mostly_ascii_text_becomes_quoted_printable_and_the_rest_stays() -> None:
    data = (
        b"Subject: hello\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: 8bit\r\n"
        b"X-After: \xc3\xa9 stays\r\n\r\nHello there, caf\xe9 \r\n-- \r\nme=\r\n"
    )
    assert same_parts(data).encode() == (
        b"Subject: hello\r\nContent-Type: text/plain; charset=iso-8859-1\r\n"
        b"Content-Transfer-Encoding: quoted-printable\r\n"
        b"X-After: \xc3\xa9 stays\r\n\r\nHello there, caf=E9=20\r\n=2D-=20\r\nme=3D\r\n"
    )


def test_text_in_another_script_becomes_base64() -> None:
    text = same_parts("Content-Type: text/plain; charset=koi8-r\n\nдобрый день\n".encode("koi8-r"))  # noqa: RUF001 - Russian
    assert "Content-Transfer-Encoding: base64\n" in text


def test_only_the_part_that_needs_it_changes() -> None:
    one = b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xc3\xa9\r\n"
    two = b"Content-Type: image/png\r\nContent-Transfer-Encoding: binary\r\n\r\n\x89PNG\r\n\x1a\n\xff\xfe"
    head = b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="x y"\r\n\r\n'
    data = head + b"for old readers\r\n--x y\r\n" + one + b"\r\n--x y  \r\n" + two + b"\r\n--x y--\r\nafter\r\n"
    text = same_parts(data).encode()
    assert text.startswith(head + b"for old readers\r\n--x y\r\n" + one + b"\r\n--x y  \r\n")
    assert text.endswith(b"\r\n--x y--\r\nafter\r\n")


def test_messages_in_messages_are_walked() -> None:
    inner = b"Subject: caf\xe9\r\nContent-Type: text/plain; charset=latin-1\r\n\r\nna\xefve and more of it\r\n"
    data = (
        b"Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\nContent-Type: message/rfc822\r\n\r\n" + inner
        + b"\r\n--o\r\nContent-Type: multipart/digest; boundary=i\r\n\r\n--i\r\n\r\n" + inner
        + b"\r\n--i--\r\n--o--\r\n"
    )  # fmt: skip
    text = same_parts(data)
    assert text.count("=?latin-1?q?caf=E9?=") == 2
    assert text.count("na=EFve") == 2


def test_a_boundary_without_unicode_gets_another_everywhere() -> None:
    data = (
        b'Content-Type: multipart/mixed;\r\n boundary="b\xe9"; x=y\r\n\r\npre\xe9\r\n--b\xe9\r\n\r\none\xff\r\n'
        b"--b\xe9 \r\n\r\ntwo\r\n--b\xe9--\r\nepi\xe9logue"
    )
    text = mime_text(data)
    assert [part.content for part in parts_of(text.encode())] == [b"one\xff", b"two"]
    assert "pre=E9" in text
    assert "epi=E9logue" in text
    assert "; x=y; boundary=" in text


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        b"\r\n\xff",
        b"no header \xff\r\nat all\r\n",
        b"Subject: x\r\nthis is no header \xff\r\n\r\nbody",
        b"Content-Type: multipart/mixed\r\n\r\n--x\r\n\r\n\xff\r\n--x--",
        b"Content-Type: multipart/mixed; boundary=never\r\n\r\n--x\r\n\r\n\xff\r\n",
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n\xff no end\r\n\r\n",
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n--b\r\n\r\n\xff\r\n--b--",
        b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\n--bc \xff\n--b\r\n\r\n\xfe\r--b--",
        b"Content-Type: multipart/x; boundary=o\n\n--o\nContent-Type: multipart/x; boundary=i\n\n--i\n\n\xff\n--o--",
        b"Content-Type: multipart/x; boundary=b\n\n--b\n\n\xff --b\n\xff\n --b\n\n--bb\n\xff\n--b--\n",
        b"Content-Type: text/plain\nContent-Transfer-Encoding: 8bit\nContent-Transfer-Encoding: binary\n\n\xff\n",
        b"Content-Type: text/plain\nContent-Transfer-Encoding: nonsense\n\n\xff\n",
        b"Content-Type: nonsense\n\n\xff\r\r\n\n\x00",
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\nca=66\xe9 =\r\nsoft =E9\r\n",
        b"Content-Transfer-Encoding: base64\r\n\r\naGVs\xe9bG8=\r\n",
        b"Content-Transfer-Encoding: base64\r\n\r\naGVsbG8=\r\n-- \r\nGepr\xfcft: keine Viren\r\n",
        b"Content-Transfer-Encoding: x-uuencode\r\n\r\nbegin 644 caf\xe9.txt\r\n#86)C\r\n`\r\nend\r\n",
        b"Content-Type: text/plain\n\n" + b"a" * 200 + b"--b\xff" + b"-" * 200 + b"\r\n \t\r\nx\r",
    ],
)
def test_broken_messages_lose_nothing(data: bytes) -> None:
    same_parts(data)


@given(entities())
def test_every_part_of_any_message_decodes_to_the_same_bytes(data: bytes) -> None:
    same_parts(data)


@given(
    st.binary() | entities().flatmap(lambda data: st.integers(0, len(data)).map(lambda cut: data[cut:] + data[:cut]))
)
@example(b"Content-Type: multipart/x; boundary=\xff\r\n\r\n--\xff\r\n" * 80)
@example(b"Content-Type: multipart/x; boundary=a\n\n--a\n" * 3 + b"\xff")
@example(b"Content-Type: message/rfc822\n\n" * 3000 + b"\xff")
@example(b"Content-Type: x; charset=\xff\n\n\xff")
@example(b"Content-Type: x/y; charset=rot13\nSubject: \xff\n\n\xff")
@example(b"Content-Type: x/y; charset=undefined\nSubject: \xff\n\n\xff")
@example(b'Content-Type: x/y; name*0="a"; name*1*=%ff\xff; boundary*99999999999999999999=\xff\n\n\xff')
def test_nothing_raises_or_is_replaced(data: bytes) -> None:
    text = mime_text(data)
    text.encode()
    assert "\N{REPLACEMENT CHARACTER}" not in text or "\N{REPLACEMENT CHARACTER}".encode() in data


@given(entities(), st.integers(1, 40))
def test_the_size_of_a_block_makes_no_difference(data: bytes, block: int) -> None:
    assert b"".join(mime_pieces(MimeBytes(data), block=block)) == mime_text(data).encode()


@given(BODIES)
def test_a_body_of_any_bytes_comes_back(body: bytes) -> None:
    for kind in (b"text/plain", b"application/octet-stream"):
        data = b"Content-Type: " + kind + b"\r\n\r\n" + body
        assert parts_of(mime_text(data).encode()) == parts_of(data) == [Part(kind.decode(), body)]


# --- Headers ---------------------------------------------------------------------------------------------------------


def header(data: bytes, name: str) -> list[tuple[bytes | str, str | None]]:
    value = email.message_from_string(mime_text(data))[name]
    return decode_header(value)


def test_raw_words_are_encoded_and_their_neighbours_stay() -> None:
    assert mime_text(b"Subject: caf\xe9 cr\xe8me please\r\n\r\n") == (
        "Subject: =?unknown-8bit?q?caf=E9_cr=E8me?= please\r\n\r\n"
    )


def test_space_beside_words_that_are_encoded_already_is_kept() -> None:
    decoded = header(b"Subject: =?utf-8?q?a?= caf\xe9\r\n =?utf-8?q?b?=\r\n\r\n", "Subject")
    assert b"".join(part for part, _ in decoded if isinstance(part, bytes)) == b"a caf\xe9 b"


def test_the_declared_charset_is_named_when_the_bytes_fit_it() -> None:
    data = (
        b"Content-Type: text/plain; charset=shift_jis\r\nSubject: "
        + "日本語の題名です".encode("shift_jis") * 9
        + b"\r\n\r\n"
    )
    text = mime_text(data)
    assert max(len(line) for line in text.splitlines()) < 90
    decoded = header(data, "Subject")
    assert decoded == [("日本語の題名です".encode("shift_jis") * 9, "shift_jis")]
    # Each encoded word holds whole characters: readers that decode them one by one get the same.
    assert all(
        part.decode("shift_jis")
        for line in text.split("Subject: ")[1].split()
        for part, _ in decode_header(line)
        if isinstance(part, bytes)
    )


def test_quoted_names_in_addresses_lose_their_quotes() -> None:
    assert mime_text(b'To: "J\xf6rg, M\xfcller" <a@b.c>, K\xe9vin <d@e.f>\r\n\r\n') == (
        "To: =?unknown-8bit?b?SvZyZywgTfxsbGVy?= <a@b.c>, =?unknown-8bit?q?K=E9vin?= <d@e.f>\r\n\r\n"
    )


def test_parameters_are_encoded_as_rfc_2231_says() -> None:
    data = (
        b'Content-Type: application/pdf;\r\n name="caf\xe9 \\"x\\".pdf"\r\n'
        b'Content-Disposition: attachment; filename*0="caf\xe9"; filename*1=.pdf; size=1\r\n\r\n\xff'
    )  # fmt: skip
    text = mime_text(data)
    assert "name*=unknown-8bit''caf%E9%20%22x%22.pdf\r\n" in text
    assert "attachment; filename*0*=unknown-8bit''caf%E9; filename*1=.pdf; size=1\r\n" in text


# Control characters are line ends to decode_header.
HEADER_WORDS = st.lists(st.sampled_from(sorted(set(range(33, 256)) - set(b"=?\x7f"))), min_size=1, max_size=60).map(
    bytes
)


@given(st.lists(HEADER_WORDS, min_size=1))
def test_no_byte_of_a_subject_is_lost(words: list[bytes]) -> None:
    value = b" ".join(words)
    data = b"Subject: " + value + b"\r\n\r\n\xff"
    message = email.message_from_string(mime_text(data))
    decoded = b"".join(
        part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        for part, _ in decode_header(message["Subject"])
    )
    if any(word.isascii() for word in words):
        # decode_header takes the spaces around encoded words away.
        assert decoded.replace(b" ", b"") == value.replace(b" ", b"")
    elif not _valid(value):
        assert decoded == value


LONG = b" ".join(b"caf\xe9 number %d," % number for number in range(300))


@pytest.mark.parametrize("block", [4, 1000, 65536])
def test_a_field_that_is_too_long_is_encoded_as_a_whole(block: int) -> None:
    data = b"X-A: a\r\nSubject: " + LONG.replace(b", ", b",\r\n ") + b"\r\nX-B: b\r\n\r\n\xff"
    text = b"".join(mime_pieces(MimeBytes(data), block=block, longest_field=2000)).decode()
    message = email.message_from_string(text)
    assert (message["X-A"], message["X-B"], message["Content-Transfer-Encoding"]) == ("a", "b", "base64")
    assert decode_header(message["Subject"]) == [(LONG, "unknown-8bit")]
    assert max(len(line) for line in text.splitlines()) <= len("Subject: ") + 75


@pytest.mark.parametrize(
    "field",
    [b"x" * 3000 + b": caf\xe9\r\n", b" folded, of nothing" * 200 + b"\xe9\r\n", b"caf\xe9: " + b"x" * 3000 + b"\r\n"],
)
def test_a_line_that_is_too_long_and_no_field_stays_legible(field: bytes) -> None:
    data = field + b"Subject: s\r\n\r\nbody"
    text = b"".join(mime_pieces(MimeBytes(data), longest_field=2000)).decode()
    assert "=E9" in text
    assert parts_of(text.encode())[-1].content.endswith(b"body")


def test_a_long_field_in_unicode_stays_as_it_is() -> None:
    field = "Subject: " + "\u00e9" * 5000 + "\r\n"
    data = field.encode() + b"\r\n\xff"
    assert b"".join(mime_pieces(MimeBytes(data), longest_field=2000)).decode().startswith(field)


def test_a_boundary_that_somebody_foresaw_is_not_taken() -> None:
    data = b'Content-Type: multipart/mixed; boundary="\xe9"\n\n--\xe9\n\n\xff\n--\xe9\n\nFORESEEN\n--\xe9--\n'
    taken = parameter_of(mime_text(data))
    trap = data.replace(b"FORESEEN", b"--" + taken.encode())
    text = mime_text(trap)
    assert parameter_of(text) != taken
    assert [part.content for part in parts_of(text.encode())] == [b"\xff", b"--" + taken.encode()]


def parameter_of(text: str) -> str:
    boundary = email.message_from_string(text).get_boundary()
    assert boundary is not None
    return boundary


def _valid(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True

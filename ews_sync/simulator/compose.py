"""Makes a message's bytes from its plan, by hand: real mail is not as tidy as a library would write it."""

from __future__ import annotations

import base64
import random
from email.header import Header
from email.utils import format_datetime
from typing import TYPE_CHECKING, Final

from ews_sync.simulator import words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from ews_sync.simulator.mail import Plan
    from ews_sync.simulator.properties import Address

_OFFICE: Final = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
_FILES: Final = (
    ("policy.pdf", "application/pdf", b"%PDF-1.7\n"),
    ("photo.png", "image/png", b"\x89PNG\r\n\x1a\n"),
    ("Gutachten é.docx", _OFFICE, b"PK\x03\x04"),
)


def message(plan: Plan, sent: datetime, size: int | None) -> bytes:
    """Return the message, with CRLF at the end of each line; of about `size` bytes if that is given."""
    rng = random.Random(plan.rng_state)
    if size is not None:
        head = _headers(plan, sent)
        # 57 bytes become a line of 78 with its ending; the rest of the message takes about 1,200.
        room = max(0, size - 1200) * 57 // 78
        parts = [_text_part("\r\n".join(_paragraphs(rng, 2))), _file_part(rng, room, 0)]
        return head + _multipart("mixed", parts, f"=_{plan.number:x}_large")
    return _BODIES[plan.kind](plan, sent, rng)


def _headers(plan: Plan, sent: datetime, *further: str) -> bytes:
    lines = [
        f"Received: from mx.{words.DOMAINS[0]} by mail.example.com with ESMTPS; {format_datetime(sent)}",
        f"From: {_person(plan.author)}",
        f"To: {', '.join(map(_person, plan.to))}",
    ]
    if plan.cc:
        lines.append(f"Cc: {', '.join(map(_person, plan.cc))}")
    lines += [f"Subject: {_words(plan.subject)}", f"Date: {format_datetime(sent)}"]
    if plan.message_id:
        lines.append(f"Message-ID: {plan.message_id}")
    if plan.references:
        lines.append(f"In-Reply-To: {plan.references[-1]}")
        lines.append("References: " + "\r\n ".join(plan.references))
    if plan.importance != "Normal":
        lines.append(f"Importance: {plan.importance}")
    lines += [*further, "MIME-Version: 1.0"]
    return "".join(f"{line}\r\n" for line in lines).encode()


def _plain(plan: Plan, sent: datetime, rng: random.Random) -> bytes:
    return _headers(plan, sent) + _text_part("\r\n\r\n".join(_paragraphs(rng, plan.paragraphs)))


def _html(plan: Plan, sent: datetime, rng: random.Random) -> bytes:
    paragraphs = _paragraphs(rng, plan.paragraphs)
    markup = "".join(f"<p>{text}</p>\r\n" for text in paragraphs)
    page = f"<html><head><meta charset=utf-8></head><body>\r\n{markup}</body></html>\r\n"
    parts = [_text_part("\r\n\r\n".join(paragraphs)), _text_part(page, "html")]
    return _headers(plan, sent) + _multipart("alternative", parts, f"----=_NextPart_{plan.number:06d}")


def _attachments(plan: Plan, sent: datetime, rng: random.Random) -> bytes:
    text = _text_part("\r\n\r\n".join(_paragraphs(rng, plan.paragraphs)))
    files = [_file_part(rng, size, place) for place, size in enumerate(plan.attachments)]
    return _headers(plan, sent) + _multipart("mixed", [text, *files], f"=_{plan.number:x}_mixed")


def _forward(plan: Plan, sent: datetime, rng: random.Random) -> bytes:
    inner = (
        f"From: someone@{words.DOMAINS[1]}\r\nTo: {plan.author.email}\r\n"
        f"Subject: the original of {plan.number}\r\nMIME-Version: 1.0\r\n"
    ).encode() + _text_part("\r\n".join(_paragraphs(rng, 3)))
    attached = b"Content-Type: message/rfc822\r\nContent-Disposition: attachment\r\n\r\n" + inner
    parts = [_text_part("See below.\r\n"), attached]
    return _headers(plan, sent) + _multipart("mixed", parts, f"fwd{plan.number}")


def _latin1(plan: Plan, sent: datetime, rng: random.Random) -> bytes:
    text = "\r\n".join(rng.choice(words.ACCENTED) for _ in range(plan.paragraphs))
    head = _headers(plan, sent, "X-Mailer: raw 8-bit")
    return (
        head
        + b"Content-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        + (text.encode("latin-1") + b"\r\n")
    )


def _utf8(plan: Plan, sent: datetime, rng: random.Random) -> bytes:
    text = "\r\n".join([*(rng.choice(words.ACCENTED) for _ in range(plan.paragraphs)), "ご確認ください。🌧️"])
    head = _headers(plan, sent)
    return (
        head
        + b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        + (text.encode() + b"\r\n")
    )


def _signed(plan: Plan, sent: datetime, rng: random.Random) -> bytes:
    signature = (
        b'Content-Type: application/pkcs7-signature; name="smime.p7s"\r\n'
        + _attached("smime.p7s")
        + _encoded(b"0\x82" + rng.randbytes(1800))
    )
    parts = [_text_part("\r\n".join(_paragraphs(rng, plan.paragraphs))), signature]
    parameters = '; protocol="application/pkcs7-signature"; micalg=sha-256'
    return _headers(plan, sent) + _multipart("signed", parts, f"smime{plan.number}", parameters)


def _meeting(plan: Plan, sent: datetime, rng: random.Random) -> bytes:
    stamp = f"{sent:%Y%m%dT%H%M%SZ}"
    calendar = (
        "BEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nVERSION:2.0\r\nBEGIN:VEVENT\r\n"
        f"UID:{plan.number}@{words.DOMAINS[0]}\r\nDTSTAMP:{stamp}\r\nDTSTART:{stamp}\r\n"
        f"SUMMARY:Meeting {plan.number}\r\nORGANIZER:mailto:{plan.author.email}\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
    )
    invitation = f"Content-Type: text/calendar; charset=utf-8; method=REQUEST\r\n\r\n{calendar}".encode()
    parts = [_text_part("\r\n".join(_paragraphs(rng, 1))), invitation]
    return _headers(plan, sent) + _multipart("alternative", parts, f"meet{plan.number}")


def _ndr(plan: Plan, sent: datetime, rng: random.Random) -> bytes:
    lost = f"nobody{rng.randrange(99)}@{words.DOMAINS[2]}"
    status = (
        "Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns;mail.example.com\r\n\r\n"
        f"Final-Recipient: rfc822;{lost}\r\nAction: failed\r\nStatus: 5.1.10\r\n"
    ).encode()
    original = f"Content-Type: text/rfc822-headers\r\n\r\nTo: {lost}\r\nSubject: lost\r\n".encode()
    parts = [_text_part(f"Your message to {lost} couldn't be delivered.\r\n"), status, original]
    return _headers(plan, sent) + _multipart("report", parts, f"ndr{plan.number}", "; report-type=delivery-status")


_BODIES: Final[dict[str, Callable[[Plan, datetime, random.Random], bytes]]] = {
    "plain": _plain,
    "html": _html,
    "attachments": _attachments,
    "forward": _forward,
    "latin1": _latin1,
    "utf8": _utf8,
    "signed": _signed,
    "meeting": _meeting,
    "ndr": _ndr,
    "hostile": _plain,
}


def _paragraphs(rng: random.Random, count: int) -> list[str]:
    return [" ".join(rng.choice(words.SENTENCES) for _ in range(rng.randrange(1, 6))) for _ in range(count)]


def _text_part(text: str, subtype: str = "plain") -> bytes:
    return f"Content-Type: text/{subtype}; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{text}\r\n".encode()


def _file_part(rng: random.Random, size: int, place: int) -> bytes:
    name, kind, magic = _FILES[place % len(_FILES)]
    content = magic + rng.randbytes(max(0, size - len(magic)))
    return f"Content-Type: {kind}\r\n".encode() + _attached(name) + _encoded(content)


def _attached(name: str) -> bytes:
    return f'Content-Disposition: attachment; filename="{_words(name)}"\r\n'.encode()


def _encoded(content: bytes) -> bytes:
    return b"Content-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(content).replace(b"\n", b"\r\n")


def _multipart(subtype: str, parts: Iterable[bytes], boundary: str, parameters: str = "") -> bytes:
    mark = b"--" + boundary.encode()
    pieces = [f'Content-Type: multipart/{subtype}; boundary="{boundary}"{parameters}\r\n\r\n'.encode()]
    for part in parts:
        pieces += [mark, b"\r\n", part, b"\r\n"]
    return b"".join([*pieces, mark, b"--\r\n"])


def _person(address: Address) -> str:
    name = address.name
    if name.isascii():
        return f'"{name}" <{address.email}>'
    return f"{Header(name, 'utf-8').encode()} <{address.email}>"


def _words(text: str) -> str:
    """Return a header's text, as encoded words where it must be."""
    if text.isascii() and text.isprintable() and "=?" not in text and len(text) < 900:
        return text
    encoded = [base64.b64encode(text[at : at + 10].encode()).decode("ascii") for at in range(0, len(text), 10)]
    return "\r\n ".join(f"=?utf-8?B?{word}?=" for word in encoded)

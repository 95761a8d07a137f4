"""The wrapping that Negotiate puts around NTLM's messages: SPNEGO, RFC 4178. Pure."""

from __future__ import annotations

from ews_sync.simulator.ntlm_messages import SIGNATURE, MalformedMessageError

_NTLMSSP = bytes.fromhex("2b06010401823702020a")
_APPLICATION, _SEQUENCE, _OCTETS, _OID, _ENUMERATED = 0x60, 0x30, 0x04, 0x06, 0x0A
_INIT, _RESPONSE, _TOKEN = 0xA0, 0xA1, 0xA2
_ACCEPT_INCOMPLETE = b"\x01"


def unwrapped(token: bytes) -> bytes:
    """Give the message inside a NegTokenInit or NegTokenResp; a message that is not wrapped as it is."""
    if token.startswith(SIGNATURE):
        return token
    inside = _parts(token)
    if _APPLICATION in inside:
        inside = _parts(_parts(inside[_APPLICATION]).get(_INIT, b""))
    else:
        inside = _parts(inside.get(_RESPONSE, b""))
    message = _parts(_parts(inside.get(_SEQUENCE, b"")).get(_TOKEN, b"")).get(_OCTETS)
    if message is None:
        raise MalformedMessageError("it is no SPNEGO with a message inside")
    return message


def wrapped(message: bytes) -> bytes:
    """Put a server's challenge into a NegTokenResp."""
    fields = (
        _part(0xA0, _part(_ENUMERATED, _ACCEPT_INCOMPLETE))
        + _part(0xA1, _part(_OID, _NTLMSSP))
        + _part(_TOKEN, _part(_OCTETS, message))
    )
    return _part(_RESPONSE, _part(_SEQUENCE, fields))


def _part(tag: int, value: bytes) -> bytes:
    size = len(value)
    if size < 0x80:
        return bytes((tag, size)) + value
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(digits))) + digits + value


def _parts(data: bytes) -> dict[int, bytes]:
    """Take DER apart, one level: the value of each tag."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 2 <= len(data):
        tag, size = data[at], data[at + 1]
        at += 2
        if size & 0x80:
            digits = size & 0x7F
            size = int.from_bytes(data[at : at + digits], "big")
            at += digits
        if at + size > len(data):
            raise MalformedMessageError("a part reaches beyond the end")
        found.setdefault(tag, data[at : at + size])
        at += size
    return found

"""NTLM's messages and its arithmetic, as a server needs them. Pure.

Written from Microsoft's [MS-NLMP]: section 2.2.1 has the messages, 3.3.2 the NTLMv2 response, 3.1.5.1.2 the MIC.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SIGNATURE = b"NTLMSSP\0"
NEGOTIATE, CHALLENGE, AUTHENTICATE = 1, 2, 3

UNICODE = 0x00000001
REQUEST_TARGET = 0x00000004
SIGN = 0x00000010
SEAL = 0x00000020
NTLM = 0x00000200
ALWAYS_SIGN = 0x00008000
TARGET_TYPE_DOMAIN = 0x00010000
EXTENDED_SESSION_SECURITY = 0x00080000
TARGET_INFO = 0x00800000
VERSION = 0x02000000
KEY_128 = 0x20000000
KEY_EXCHANGE = 0x40000000
KEY_56 = 0x80000000
_OFFERED = UNICODE | REQUEST_TARGET | NTLM | ALWAYS_SIGN | EXTENDED_SESSION_SECURITY | TARGET_INFO | VERSION
_IF_ASKED_FOR = SIGN | SEAL | KEY_128 | KEY_56 | KEY_EXCHANGE

_NB_COMPUTER, _NB_DOMAIN, _DNS_COMPUTER, _DNS_DOMAIN, _FLAGS, _TIMESTAMP, _BINDINGS = 1, 2, 3, 4, 6, 7, 10
_HAS_MIC = 0x2
_MIC_AT = 72
_WINDOWS_EPOCH = 11_644_473_600
_MD4_ROUNDS: tuple[tuple[Callable[[int, int, int], int], int, tuple[int, ...], tuple[int, ...]], ...] = (
    (lambda x, y, z: (x & y) | (~x & z), 0, tuple(range(16)), (3, 7, 11, 19)),
    (
        lambda x, y, z: (x & y) | (x & z) | (y & z),
        0x5A827999,
        tuple(4 * (step % 4) + step // 4 for step in range(16)),
        (3, 5, 9, 13),
    ),
    (lambda x, y, z: x ^ y ^ z, 0x6ED9EBA1, (0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15), (3, 9, 11, 15)),
)
"""MD4's three rounds: how the words are mixed, the constant, the order of the words, and by how much is rotated."""
_OS_VERSION = bytes.fromhex("0a0063450000000f")


class MalformedMessageError(Exception):
    """A message that is not what [MS-NLMP] says."""


@dataclass(frozen=True, slots=True)
class Authenticate:
    """An AUTHENTICATE_MESSAGE, taken apart. `mic_is_there` says what the client's own flags say."""

    raw: bytes
    flags: int
    nt_response: bytes
    domain: str
    user: str
    session_key: bytes
    mic_is_there: bool
    bindings: bytes

    @property
    def proof(self) -> bytes:
        """NTProofStr."""
        return self.nt_response[:16]

    @property
    def client_data(self) -> bytes:
        """What the proof is about, besides the server's challenge."""
        return self.nt_response[16:]


def message_type(message: bytes) -> int:
    """Give the type of a message."""
    if message[:8] != SIGNATURE or len(message) < 12:
        raise MalformedMessageError("it does not begin with NTLMSSP")
    return int(struct.unpack_from("<I", message, 8)[0])


def challenge(negotiate: bytes, server_challenge: bytes, *, domain: str, computer: str, now: float) -> bytes:
    """Answer a NEGOTIATE_MESSAGE. `server_challenge` has 8 random bytes; `now` is in seconds since 1970."""
    if len(negotiate) < 16:
        raise MalformedMessageError("the negotiate message is too short")
    flags = _OFFERED | TARGET_TYPE_DOMAIN | (struct.unpack_from("<I", negotiate, 12)[0] & _IF_ASKED_FOR)
    target = domain.encode("utf-16-le")
    pairs = (
        (_NB_DOMAIN, target),
        (_NB_COMPUTER, computer.encode("utf-16-le")),
        (_DNS_DOMAIN, f"{domain}.example".lower().encode("utf-16-le")),
        (_DNS_COMPUTER, f"{computer}.{domain}.example".lower().encode("utf-16-le")),
        (_TIMESTAMP, struct.pack("<Q", int((now + _WINDOWS_EPOCH) * 10_000_000))),
    )
    info = b"".join(struct.pack("<HH", number, len(value)) + value for number, value in (*pairs, (0, b"")))
    head = 56
    return b"".join(
        (
            SIGNATURE,
            struct.pack("<I", CHALLENGE),
            struct.pack("<HHI", len(target), len(target), head),
            struct.pack("<I", flags),
            server_challenge,
            bytes(8),
            struct.pack("<HHI", len(info), len(info), head + len(target)),
            _OS_VERSION,
            target,
            info,
        )
    )


def authenticate(message: bytes) -> Authenticate:
    """Take an AUTHENTICATE_MESSAGE apart."""
    if len(message) < 64 or message_type(message) != AUTHENTICATE:
        raise MalformedMessageError("it is no authenticate message")
    nt_response = _field(message, 20)
    flags = int(struct.unpack_from("<I", message, 60)[0])
    # Two bytes of version, six of nothing, the time, the client's challenge, four of nothing; then pairs.
    pairs = _pairs(nt_response[16 + 28 :])
    encoding = "utf-16-le" if flags & UNICODE else "cp437"
    try:
        domain, user = (_field(message, at).decode(encoding) for at in (28, 36))
    except UnicodeDecodeError:
        raise MalformedMessageError("a name is not in the encoding that the flags say") from None
    own_flags = pairs.get(_FLAGS, bytes(4))
    return Authenticate(
        raw=message,
        flags=flags,
        nt_response=nt_response,
        domain=domain,
        user=user,
        session_key=_field(message, 52),
        mic_is_there=bool(int.from_bytes(own_flags, "little") & _HAS_MIC),
        bindings=pairs.get(_BINDINGS, bytes(16)),
    )


def session_base_key(password: str, message: Authenticate, server_challenge: bytes) -> bytes | None:
    """Check the NTLMv2 response against the password; give the key of the session, None when the proof is wrong."""
    identity = (message.user.upper() + message.domain).encode("utf-16-le")
    key = _hmac_md5(md4(password.encode("utf-16-le")), identity)
    proof = _hmac_md5(key, server_challenge + message.client_data)
    if len(message.nt_response) < 16 + 28 or not hmac.compare_digest(proof, message.proof):
        return None
    return _hmac_md5(key, proof)


def mic_is_right(base_key: bytes, negotiate: bytes, challenge_sent: bytes, message: Authenticate) -> bool:
    """Check the MIC over the three messages."""
    key = base_key
    if message.flags & KEY_EXCHANGE and message.flags & (SIGN | SEAL):
        key = _rc4(base_key, message.session_key)
    blank = message.raw[:_MIC_AT] + bytes(16) + message.raw[_MIC_AT + 16 :]
    expected = _hmac_md5(key, negotiate + challenge_sent + blank)
    return hmac.compare_digest(expected, message.raw[_MIC_AT : _MIC_AT + 16])


def bindings_of(application_data: bytes) -> bytes:
    """Give the MD5 of gss_channel_bindings_struct (RFC 4121 section 4.1.1.2) without addresses."""
    packed = bytes(16) + struct.pack("<I", len(application_data)) + application_data
    return hashlib.md5(packed, usedforsecurity=False).digest()


def md4(data: bytes) -> bytes:
    """RFC 1320. OpenSSL 3 no longer has it."""
    bits = 2**32 - 1
    length = struct.pack("<Q", len(data) * 8)
    data += b"\x80" + bytes((55 - len(data)) % 64) + length
    state = [0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476]
    for start in range(0, len(data), 64):
        words = struct.unpack_from("<16I", data, start)
        a, b, c, d = state
        for mix, constant, order, shifts in _MD4_ROUNDS:
            for step, index in enumerate(order):
                value = (a + mix(b, c, d) + words[index] + constant) & bits
                shift = shifts[step % 4]
                a, b, c, d = d, ((value << shift) | (value >> (32 - shift))) & bits, b, c
        state = [(old + new) & bits for old, new in zip(state, (a, b, c, d), strict=True)]
    return struct.pack("<4I", *state)


def _field(message: bytes, at: int) -> bytes:
    size, _, offset = struct.unpack_from("<HHI", message, at)
    if offset + size > len(message):
        raise MalformedMessageError("a field reaches beyond the end")
    return message[offset : offset + size]


def _pairs(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(data):
        number, size = struct.unpack_from("<HH", data, at)
        if number == 0:
            break
        found[number] = data[at + 4 : at + 4 + size]
        at += 4 + size
    return found


def _hmac_md5(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "md5")


def _rc4(key: bytes, data: bytes) -> bytes:
    box = list(range(256))
    j = 0
    for i in range(256):
        j = (j + box[i] + key[i % len(key)]) % 256
        box[i], box[j] = box[j], box[i]
    out = bytearray()
    i = j = 0
    for byte in data:
        i = (i + 1) % 256
        j = (j + box[i]) % 256
        box[i], box[j] = box[j], box[i]
        out.append(byte ^ box[(box[i] + box[j]) % 256])
    return bytes(out)

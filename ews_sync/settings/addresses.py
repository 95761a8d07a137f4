"""Checking what names a place: URLs, HOST:PORT, email addresses, names that become part of a path.

Every function gives the value back in its normal form, or raises ValueError with the words that fit behind the
value's name: `must be …`.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

from ews_sync.settings.problems import shown

LONGEST_ADDRESS = 320
"""Bytes: 64 for the local part, an "@", 255 for the domain (RFC 3696, section 3; RFC 6532, section 3.4)."""

_HOST = re.compile(r"[\w.-]+\Z")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]+(%\w+)?\Z")


def checked_url(text: str, kind: str) -> SplitResult:
    """Check an http or https address; `kind` says what is wanted, such as `an address such as "https://…"`."""
    wrong = f"must be {kind}, not {shown(text)}"
    if any(letter.isspace() or not letter.isprintable() for letter in text):
        raise ValueError(wrong)
    try:
        url = urlsplit(text)
        port, host = url.port, url.hostname
    except ValueError:
        raise ValueError(wrong) from None
    if url.scheme not in {"http", "https"} or not host or port == 0 or not is_host(host):
        raise ValueError(wrong)
    if "@" in url.netloc:
        raise ValueError("must not contain a user or password: they have keys of their own")
    if url.query or url.fragment or text.endswith(("?", "#")):
        raise ValueError(f"must end with its path, without ? or #, not {shown(text)}")
    return url


def is_host(text: str) -> bool:
    """Tell whether text could be a host's name or an IP address (IPv6 without brackets)."""
    return len(text) <= 253 and bool(_IPV6.match(text) if ":" in text else _HOST.match(text))


def host_and_port(text: str) -> tuple[str, int]:
    """Split HOST:PORT; an IPv6 address stands in brackets. Port 0 means any that is free."""
    wrong = f'must be HOST:PORT, such as "0.0.0.0:8000" or "[::1]:8000", not {shown(text)}'
    host, separator, number = text.strip().rpartition(":")
    if host.startswith("[") and host.endswith("]") and ":" in host:
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(wrong)
    if not separator or not is_host(host) or not re.fullmatch(r"[0-9]{1,5}", number) or int(number) > 65535:
        raise ValueError(wrong)
    return host, int(number)


def email_address(text: str) -> str:
    """Check a mailbox's address, roughly: the server knows better what exists."""
    local, _, domain = text.rpartition("@")
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > LONGEST_ADDRESS:
        raise ValueError(f"must be an email address of at most {LONGEST_ADDRESS} bytes, not {size}")
    if not local or not domain or any(letter.isspace() or not letter.isprintable() for letter in text):
        raise ValueError('must be an email address, such as "abc@example.com"')
    return text


def path_name(text: str) -> str:
    """Check a name that becomes one part of a path: it must not lead anywhere else."""
    if (
        not text.strip()
        or text in {".", ".."}
        or any(letter in "/\\" or not letter.isprintable() for letter in text)
        or len(text.encode("utf-8", "surrogateescape")) > 250
    ):
        raise ValueError(f'must be a plain name without "/" or "\\", and not "." or "..", not {shown(text)}')
    return text


def at_port(host: str, port: int, scheme: str) -> str:
    """Write scheme, host and port, the port only where it is not the scheme's own."""
    name = f"[{host}]" if ":" in host else host
    usual = {"http": 80, "https": 443}[scheme]
    return f"{scheme}://{name}" if port == usual else f"{scheme}://{name}:{port}"

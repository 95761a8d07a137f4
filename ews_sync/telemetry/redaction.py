"""Keeping secrets and message content out of the log, whatever is handed to it."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence, Set as AbstractSet
from datetime import date, datetime, time
from enum import Enum
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus
from xml.sax.saxutils import escape

from pydantic import SecretStr

from ews_sync.settings.describe import MASK, login_of, secrets_of

if TYPE_CHECKING:
    from ews_sync.settings.values import RunOptions

_SECRET_KEY = re.compile(
    r"(^|_)pass(_|$)|passw|passphrase|token|secret|authorization|private_?key|assertion|cookie", re.IGNORECASE
)
_CONTENT_KEY = re.compile(
    r"(^|_)(mime|subject|body|body_text|body_html|html|preview)(_content|_bytes)?$|^(content|payload)$", re.IGNORECASE
)
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # Bytes as their repr, which is how HTTP libraries log headers and bodies at their lowest level.
    (re.compile(r"""\bb(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""", re.DOTALL), "<bytes>"),
    (
        re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", re.DOTALL),
        MASK,
    ),
    (re.compile(r"(?<=://)[^/?#\s\"'<>@]*@"), MASK + "@"),
    # Not every word behind "basic": a token has a digit, a capital letter or padding in it.
    (re.compile(r"\b((?i:Bearer|Basic|NTLM|Negotiate))\s+(?=\S*[0-9A-Z=])[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {MASK}"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"), MASK),
    (re.compile(r"(?i)((?:proxy-)?authorization|(?:set-)?cookie)(['\"]?\s*[:=]\s*['\"]?)[^\r\n'\"]+"), rf"\1\2{MASK}"),
    (
        re.compile(
            r"(?i)(['\"]?\b(?:client_secret|client_assertion|assertion|(?:access|refresh|id)_token|password|passwd)\b"
            r"['\"]?\s*[=:]\s*)(?:'[^']*'|\"[^\"]*\"|[^\s&,;)}\]]+)"
        ),
        rf"\1{MASK}",
    ),
)
_SHORTEST = 4
_DEEPEST = 8


class Redactor:
    """Knows the secrets of this process and masks them, and whatever looks like one, in anything that is logged."""

    def __init__(self, secrets: Iterable[str | SecretStr] = ()) -> None:
        self._known: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self.register_secrets(secrets)

    @classmethod
    def of(cls, options: RunOptions) -> Redactor:
        """Make one that knows the secrets of the options, or of whole `Settings`."""
        redactor = cls()
        redactor.register(options)
        return redactor

    def register(self, options: RunOptions) -> None:
        """Mask these secrets, too, from now on; those that are known already stay so."""
        self.register_secrets(secrets_of(options))
        if login := login_of(options):
            self.register_login(*login)

    def register_secrets(self, values: Iterable[str | SecretStr]) -> None:
        """Mask these wherever they occur from now on: as they are, in base64, in URLs, XML and JSON.

        Of a text of several lines, such as a private key, every long line is a secret too.
        """
        before = len(self._known)
        for value in values:
            secret = value.get_secret_value() if isinstance(value, SecretStr) else value
            if not secret.strip():
                continue
            forms = {secret, secret.strip(), quote(secret, safe=""), quote_plus(secret), escape(secret)}
            forms |= {secret.replace("\\", "\\\\"), secret.replace("\n", "\\n"), _base64(secret)}
            forms |= {line for line in secret.splitlines() if len(line) >= 16 and "-----" not in line}
            self._known |= forms
        if len(self._known) == before:
            return
        # The longest first: one secret can begin like another.
        parts = [_anywhere(known) for known in sorted(self._known, key=len, reverse=True)]
        self._pattern = re.compile("|".join(parts))

    def register_login(self, user: str, password: str | SecretStr) -> None:
        """Mask a password, and what `Authorization: Basic` makes of it and its user."""
        secret = password.get_secret_value() if isinstance(password, SecretStr) else password
        login = f"{user}:{secret}"
        forms = [secret, _base64(login)]
        with contextlib.suppress(UnicodeEncodeError):
            forms.append(base64.b64encode(login.encode("latin-1")).decode("ascii"))
        self.register_secrets(forms)

    def text(self, text: str) -> str:
        """Mask the secrets in a text."""
        if self._pattern:
            text = self._pattern.sub(MASK, text)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text

    def value(self, value: object, *, depth: int = 0) -> Any:  # noqa: ANN401 - any JSON value
        """Turn anything into plain JSON values without secrets. Bytes become their length, unknown objects a name."""
        if isinstance(value, Enum):
            value = value.value
        if value is None or isinstance(value, (bool, float)) or type(value) is int:
            return value
        if isinstance(value, (bytes, bytearray, memoryview)):
            return f"<{len(value)} bytes>"
        if not isinstance(value, str) and isinstance(value, (Mapping, Sequence, AbstractSet)):
            if depth >= _DEEPEST:
                return "…"
            if isinstance(value, Mapping):
                return self.mapping(value, depth=depth + 1)
            return [self.value(entry, depth=depth + 1) for entry in value]
        return self.text(_text_of(value))

    def mapping(self, values: Mapping[Any, object], *, depth: int = 0) -> dict[str, Any]:
        """Do the same for keys and values: what looks like content is dropped, what looks like a secret is masked."""
        result: dict[str, Any] = {}
        for key, value in values.items():
            name = self.text(str(key))
            harmless = value is None or isinstance(value, bool)
            if _CONTENT_KEY.search(name) and not (harmless or isinstance(value, (int, float))):
                continue
            result[name] = MASK if _SECRET_KEY.search(name) and not harmless else self.value(value, depth=depth)
        return result


def _text_of(value: object) -> str:  # noqa: PLR0911 - one line for each kind
    match value:
        case str():
            return str(value)
        case SecretStr():
            return MASK
        case datetime() | date() | time():
            return value.isoformat()
        case BaseException():
            return f"{type(value).__name__}: {value}"
        case _ if dataclasses.is_dataclass(value) and "__str__" not in type(value).__dict__:
            # Its repr would show every field: an email's bytes, a login's password.
            return f"<{type(value).__name__}>"
        case _:
            try:
                return str(value)
            except Exception:  # noqa: BLE001 - a log line is not worth a crash
                return f"<{type(value).__name__}>"


def _base64(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogatepass")).decode("ascii")


def _anywhere(secret: str) -> str:
    """Match a secret in any text; a very short one only as a word, or every line would be full of holes."""
    return re.escape(secret) if len(secret) >= _SHORTEST else rf"(?<!\w){re.escape(secret)}(?!\w)"

"""What a 401 asks for: the WWW-Authenticate header. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# Looked at once, whether it ends or not: a header full of open quotes must not cost the square of its length.
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*+("?)', re.DOTALL)
_SCHEME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TOKEN = re.compile(r"[0-9A-Za-z._~+/-]+=*")


@dataclass(frozen=True, slots=True)
class Challenge:
    """A way to log in that a server offers: the scheme as the server writes it, and its token (token68), or ""."""

    scheme: str
    token: str = ""

    def is_of(self, scheme: str) -> bool:
        """Tell whether it is of this scheme; case does not matter."""
        return self.scheme.casefold() == scheme.casefold()


def challenges(values: Iterable[str]) -> tuple[Challenge, ...]:
    """Read the values of all WWW-Authenticate headers, where one header can hold several (RFC 9110 section 11.6.1).

    Parameters such as realm="..." are passed by.
    """
    found = []
    for value in values:
        for part in _QUOTED.sub(lambda quoted: '""' if quoted[1] else quoted[0], value).split(","):
            scheme, _, rest = part.strip().partition(" ")
            rest = rest.strip()
            if _SCHEME.fullmatch(scheme) and not rest.startswith("="):
                found.append(Challenge(scheme, rest if _TOKEN.fullmatch(rest) else ""))
    return tuple(found)


def of_scheme(found: Iterable[Challenge], scheme: str) -> Challenge | None:
    """Give the challenge of a scheme, if there is one."""
    return next((challenge for challenge in found if challenge.is_of(scheme)), None)

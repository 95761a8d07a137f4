"""What to say when a server does not offer the way to log in that the config asks for. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ews_sync.errors import AuthenticationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ews_sync.web.challenges import Challenge

_AUTH_TYPES = (
    ("ntlm", "ntlm"),
    ("negotiate", "ntlm"),
    ("negotiate", "kerberos"),
    ("bearer", "oauth2"),
    ("basic", "basic"),
)
"""Each scheme and the auth_type that uses it."""


def not_offered(wanted: str, offered: Sequence[Challenge]) -> AuthenticationError:
    """Make the error for a 401 whose WWW-Authenticate lacks the scheme `wanted`."""
    names = list(dict.fromkeys(challenge.scheme[:40] for challenge in offered))
    known = {name.casefold() for name in names}
    usable = list(dict.fromkeys(f'"{auth_type}"' for scheme, auth_type in _AUTH_TYPES if scheme in known))
    says = f"it offers {_either(names, 'and')}" if names else "it names no way to log in"
    if usable:
        hint = f"set auth_type to {_either(usable, 'or')}, or have {wanted} switched on for EWS"
    else:
        hint = (
            f"have {wanted} switched on for EWS (Set-WebServicesVirtualDirectory), and check that ews_endpoint is the "
            "Exchange server and not a proxy"
        )
    return AuthenticationError(f"the Exchange server does not offer {wanted}; {says}", code="HTTP 401", hint=hint)


def _either(names: Sequence[str], word: str) -> str:
    return f" {word} ".join(filter(None, (", ".join(names[:-1]), names[-1])))

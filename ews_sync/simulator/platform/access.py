"""Who may do what: tokens."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ews_sync.simulator.platform.calls import Permission
from ews_sync.simulator.platform.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


@dataclass(frozen=True, slots=True)
class Token:
    """What a client shows. It allows `permissions`; `hidden` are buckets (owner/name) that it cannot see."""

    secret: str = field(repr=False)
    permissions: Collection[Permission] = frozenset(Permission)
    hidden: Collection[str] = ()

    def sees(self, bucket: str) -> bool:
        """Whether a bucket (owner/name) can be seen."""
        return Permission.BUCKETS_READ in self.permissions and bucket not in self.hidden


def authenticate(authorization: str | None, tokens: Iterable[Token]) -> Token:
    """Return the token that a request has in its header Authorization.

    Raises:
        ApiError: 401.

    """
    scheme, _, secret = (authorization or "").partition(" ")
    if scheme.casefold() != "bearer" or not secret:
        raise ApiError(401, "the header Authorization must be 'Bearer' and a token")
    for token in tokens:
        if hmac.compare_digest(token.secret.encode(), secret.strip().encode()):
            return token
    raise ApiError(401, "the token is not valid")

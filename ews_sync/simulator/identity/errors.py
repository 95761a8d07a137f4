"""How an identity provider refuses: RFC 6749 section 5.2, with Entra's numbers."""

from __future__ import annotations


class RefusedError(Exception):
    """A request is refused. `error` is OAuth's word, `code` Entra's number (AADSTS...), `text` says it to people."""

    def __init__(self, error: str, code: int, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.error = error
        self.code = code
        self.text = text
        self.status = status


def unknown_tenant(tenant: str) -> RefusedError:
    """Return the error for a tenant that is not there."""
    return RefusedError("invalid_tenant", 90002, f"Tenant '{tenant}' is not known here. Check the tenant's id.")


def bad_assertion(code: int, text: str) -> RefusedError:
    """Return the error for an assertion that proves nothing."""
    return RefusedError("invalid_client", code, text, 401)

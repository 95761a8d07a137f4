"""How a request fails: in one of its response messages, or as a whole."""

from __future__ import annotations


class EwsError(Exception):
    """One response message's error; the others of the request stand. `code` is a ResponseCode."""

    def __init__(self, code: str, text: str = "", *, back_off_ms: int | None = None) -> None:
        super().__init__(text or code)
        self.code = code
        self.text = text or code
        self.back_off_ms = back_off_ms


class RequestFault(EwsError):  # noqa: N818 - a SOAP fault
    """The request's error as a whole: a SOAP fault with HTTP 500."""

    def __init__(
        self, code: str, text: str = "", *, back_off_ms: int | None = None, details: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(code, text, back_off_ms=back_off_ms)
        self.details = details

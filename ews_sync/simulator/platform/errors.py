"""How a request to the platform fails."""

from __future__ import annotations


class ApiError(Exception):
    """An answer `{"status": "error", "message": …}`. `status` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

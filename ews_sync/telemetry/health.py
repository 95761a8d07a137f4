"""What of this process is stuck and could not be mended from inside: while there is anything, /healthz fails.

Kubernetes then starts the process anew. So only what a new process would mend belongs here; a server or a disk that
does not answer does not.
"""

from __future__ import annotations

from collections import Counter


class Health:
    """Collects what is stuck, in words for people. Belongs to the event loop."""

    def __init__(self) -> None:
        self._stuck: Counter[str] = Counter()

    def stuck(self, what: str) -> None:
        """Take note that something is stuck for good, as far as this process can tell."""
        self._stuck[what] += 1

    def freed(self, what: str) -> None:
        """Take note that it came back after all; once for each time that it was stuck."""
        self._stuck[what] -= 1
        if self._stuck[what] <= 0:
            del self._stuck[what]

    @property
    def troubles(self) -> tuple[str, ...]:
        """What is stuck now, in the order in which it was noticed; nothing when all is well."""
        return tuple(self._stuck)

# ruff: noqa: INP001 - it is run as a text, not imported
"""Asks each instance, whose address is an argument, for /healthz, /readyz and /status; says what is wrong with it.

Run by `helm test` with the image's own Python. Exit code 0 when all are well, else 1.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request

NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Instances are in the cluster, whatever proxy leads out of it."""


def asked(url: str) -> tuple[int, str]:
    """Give the code and the text of an answer; code 0, and the reason, where there is none."""
    try:
        with NO_PROXY.open(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except (OSError, ValueError) as error:
        return 0, f"no answer: {error}"


def troubles(address: str) -> list[str]:
    """Say what is wrong with one instance."""
    found = []
    for path in ("/healthz", "/readyz"):
        code, text = asked(address + path)
        if code != 200:
            found.append(f"{path} {code or ''}: {text.strip()[:2000]}")
    code, text = asked(address + "/status?folders=none")
    try:
        version = json.loads(text)["version"] if code == 200 else None
    except (ValueError, KeyError, TypeError):
        version = None
    if version is None:
        found.append(f"/status {code or ''}: {text.strip()[:500]}")
    return found


def main(addresses: list[str]) -> int:
    """Ask all of them, and print a line or more for each."""
    wrong = 0
    for address in addresses:
        found = troubles(address)
        wrong += bool(found)
        print(f"{address}: {'; '.join(found) or 'well'}")  # noqa: T201 - the log of the pod is where it is read
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

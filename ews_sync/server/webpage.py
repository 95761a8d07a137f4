"""The page at `/`: one file that asks nobody but us, made of its three sources."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from importlib.resources import files

_STYLE = "/*STYLE*/"
_SCRIPT = "/*SCRIPT*/"


@dataclass(frozen=True, slots=True)
class WebPage:
    """The page, and the policy by which a browser runs this script and this style and nothing else."""

    html: str
    policy: str


def load_page() -> WebPage:
    """Read the page and put it together."""
    sources = files("ews_sync.server") / "page"
    style = (sources / "page.css").read_text(encoding="utf-8")
    script = (sources / "page.js").read_text(encoding="utf-8")
    html = (sources / "page.html").read_text(encoding="utf-8").replace(_STYLE, style).replace(_SCRIPT, script)
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash(script)}",
            f"style-src {_hash(style)}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
    return WebPage(html, policy)


def _hash(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"

"""The page at `/`: one file, and what a browser may do for it."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files


def page() -> str:
    """The page's text."""
    return files("riallm.serve").joinpath("web/index.html").read_text(encoding="utf-8")


def policy(html: str) -> str:
    """Its Content-Security-Policy: the one script and the one style that stand in it, and requests to this server.

    Both are named by their SHA-256, so that markup which ever came out of an answer could run nothing.
    """
    return (
        f"default-src 'none'; script-src {_hashes(html, 'script')}; style-src {_hashes(html, 'style')}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _hashes(html: str, tag: str) -> str:
    found = re.findall(rf"<{tag}>(.*?)</{tag}>", html, flags=re.S)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()}'" for each in found)

"""A terminal's content as one SVG file that loads nothing from elsewhere and names no folder of this machine."""

from __future__ import annotations

import html
import re
from pathlib import Path

from rich.console import Console

from riallm.core.files import atomic_write

# rich names two fonts of a server; the viewer's own monospace font, which it names next, will do.
FONT_FACE = re.compile(r"@font-face \{.*?\}\s*", flags=re.S)
TEXT = re.compile(r'(<text [^>]*textLength=")([\d.]+)("[^>]*>)([^<]*)(</text>)')


def save_picture(console: Console, path: Path, *, title: str) -> None:
    """Write what `console` (made with `record=True`) has shown so far to `path`, which is replaced as a whole.

    Paths below the working directory are shown relative to it: pictures go into documents.
    """
    picture = FONT_FACE.sub("", console.export_svg(title=title, clear=False))
    here = f"{Path.cwd()}/".replace(" ", "\xa0")

    def relative(match: re.Match[str]) -> str:
        text = html.unescape(match[4])
        if here not in text:
            return match[0]
        shown = text.replace(here, "")
        length = float(match[2]) * len(shown) / max(1, len(text))
        return f"{match[1]}{length:g}{match[3]}{html.escape(shown, quote=False)}{match[5]}"

    atomic_write(path, TEXT.sub(relative, picture).encode())

"""A terminal's content as one SVG file that loads nothing from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

from rich.console import Console

from riallm.core.files import atomic_write

# rich names two fonts of a server; the viewer's own monospace font, which it names next, will do.
FONT_FACE = re.compile(r"@font-face \{.*?\}\s*", flags=re.S)


def save_picture(console: Console, path: Path, *, title: str) -> None:
    """Write what `console` (made with `record=True`) has shown so far to `path`, which is replaced as a whole."""
    picture = console.export_svg(title=title, clear=False)
    atomic_write(path, FONT_FACE.sub("", picture).encode())

"""Python text that every installation has: the package's own source files, so that a benchmark reads what people write.

The same tree gives the same text; a tree that was changed gives another, so figures of two trees differ by that, too.
"""

from __future__ import annotations

import random

from riallm.core.shipped import PACKAGE


def whole() -> str:
    """All files one after the other, in the order of their paths."""
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py")))


def passages(num_chars: int, *, seed: int) -> list[str]:
    """Pieces that begin with a line and end wherever `num_chars` are over; no two overlap, and the order is drawn."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        at = 0
        while at + num_chars <= len(text):
            found.append(text[at : at + num_chars])
            line_end = text.find("\n", at + num_chars)
            at = len(text) if line_end < 0 else line_end + 1
    random.Random(seed).shuffle(found)
    return found

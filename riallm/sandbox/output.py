"""Output that is safe to show and small enough to keep: control sequences out, head and tail kept."""

from __future__ import annotations

import re
from collections import deque

# CSI, OSC (also DCS, SOS, PM, APC: any string up to its terminator), two-byte escapes, and their C1 one-byte forms.
_SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
)
# What is left: C0 without tab and newline, DEL, C1, and characters that change the order or vanish.
_SINGLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def clean(text: str) -> str:
    """`text` without terminal control sequences and without characters that hide or reorder others.

    Carriage returns before a newline go, others become newlines, so that no line can paint over another.
    Backspace, bell, bidirectional overrides, zero-width characters and C1 controls become U+FFFD.
    """
    if text.isascii() and text.isprintable():
        return text
    text = _SEQUENCES.sub("", text)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _SINGLE.sub("\ufffd", text)


class Capture:
    """Keeps the head and the tail of a byte stream, `limit` bytes together, and counts the rest."""

    def __init__(self, limit: int) -> None:
        self._half = max(1, limit // 2)
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._held = 0
        self.total = 0

    def add(self, data: bytes) -> None:
        """Take in the next piece."""
        self.total += len(data)
        room = self._half - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if data:
            self._tail.append(data)
            self._held += len(data)
            while self._held - len(self._tail[0]) >= self._half:
                self._held -= len(self._tail.popleft())

    @property
    def dropped(self) -> int:
        """Bytes that are in neither head nor tail."""
        return self.total - len(self._head) - min(self._held, self._half)

    def text(self) -> str:
        """What was kept, decoded and cleaned, with a line where the middle is missing."""
        tail = b"".join(self._tail)[-self._half :]
        head = bytes(self._head)
        if not self.dropped:
            return clean((head + tail).decode("utf-8", "replace"))
        gap = f"\n[... {self.dropped} bytes left out ...]\n"
        return clean(head.decode("utf-8", "replace")) + gap + clean(tail.decode("utf-8", "replace"))

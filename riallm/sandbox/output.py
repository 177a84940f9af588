"""Output that is safe to show and small enough to keep: control sequences out, head and tail kept."""

from __future__ import annotations

import codecs
import re
from collections import deque
from collections.abc import Callable

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

# An unfinished sequence at the end of a piece: an introducer and no terminator after it.
_BEGINS = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*\Z|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n]*\x1b?\Z|\x1b[ -/]*\Z"
)
_LONGEST = 4096  # characters that an unfinished sequence may hold back


def clean(text: str) -> str:
    """`text` without terminal control sequences and without characters that hide or reorder others.

    Carriage returns before a newline go, others become newlines, so that no line can paint over another.
    Backspace, bell, bidirectional overrides, zero-width characters and C1 controls become U+FFFD.
    """
    if text.isascii() and text.isprintable():
        return text
    return _lines(_SEQUENCES.sub("", text))


def _lines(text: str) -> str:
    return _SINGLE.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


class Live:
    """Shows a byte stream as it comes, cleaned; of more than `limit` bytes the middle is left out.

    A control sequence may come in two pieces: what could be the beginning of one waits for the rest.
    """

    def __init__(self, limit: int, show: Callable[[str], object]) -> None:
        self._half = max(1, limit // 2)
        self._show = show
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._waiting = ""  # what may be the beginning of a sequence
        self._return = ""  # a carriage return that may belong to a newline still to come
        self._shown = 0
        self._rest = Capture(2 * self._half, tail_only=True)
        self.total = 0

    def add(self, data: bytes) -> None:
        """Take in the next piece."""
        self.total += len(data)
        room = max(0, self._half - self._shown)
        self._shown += len(data[:room])
        self._take(self._decoder.decode(data[:room]))
        if data[room:]:
            self._rest.add(data[room:])

    def finish(self) -> None:
        """Show what was held back: the end of a long stream, an unfinished sequence."""
        rest = self._return + _SEQUENCES.sub("", self._waiting + self._decoder.decode(b"", True))
        self._waiting = self._return = ""
        self._show(_lines(rest))
        if self._rest.total:
            self._show(self._rest.text())  # begins with the line that tells how much is missing

    def _take(self, text: str) -> None:
        text = self._waiting + text
        cut = len(text)
        found = _BEGINS.search(text, max(0, len(text) - _LONGEST))
        if found is not None:
            cut = found.start()
        self._waiting = text[cut:]
        plain = self._return + _SEQUENCES.sub("", text[:cut])
        self._return = "\r" if plain.endswith("\r") else ""
        self._show(_lines(plain[:-1] if self._return else plain))


class Capture:
    """Keeps the head and the tail of a byte stream, half of `limit` bytes each, and counts the rest."""

    def __init__(self, limit: int, *, tail_only: bool = False) -> None:
        self._half = max(1, limit // 2)
        self._most = 0 if tail_only else self._half
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._held = 0
        self.total = 0

    def add(self, data: bytes) -> None:
        """Take in the next piece."""
        self.total += len(data)
        room = self._most - len(self._head)
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

"""An answer's text as it comes: never half a character, and nothing that may yet become a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], bytes]
"""The bytes of tokens; those of several are those of each, one behind the other."""


class Answer:
    """The text of one answer. After `stopped` nothing more is told."""

    def __init__(self, decode: Decode, stop: Sequence[str]) -> None:
        self._decode, self._stop = decode, [text for text in stop if text]
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """What can be told now that this token is there."""
        return self._told(self._characters.decode(self._decode([token])))

    def finish(self) -> str:
        """What was held back, when no more tokens come; U+FFFD for a character that never ended."""
        told = self._told(self._characters.decode(b"", final=True))
        held, self._held = self._held, ""
        return told if self.stopped else told + held

    def _told(self, new: str) -> str:
        if self.stopped:
            return ""
        text = self._held + new
        ends = [at for at in (text.find(stop) for stop in self._stop) if at >= 0]
        if ends:
            self.stopped, self._held = True, ""
            return text[: min(ends)]
        held = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """The longest end of a text that a stop string begins with."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)

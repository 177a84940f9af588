"""The edit: one span of one file replaced by a text. Everything that changes programs speaks in these.

Positions are character offsets into the file's text as decoded, with its own line ends: a span replacement
leaves CRLF, tabs, comments and everything else outside the span exactly as it was.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """Replace `original` at `start` in `path` by `text`.

    path: relative to the project root, with forward slashes.
    operator: name of the edit operator that made it (`code/operators`), or of the model's infill.
    prior: probability share of the operator times its own share for this filling; larger is likelier.
    """

    path: str
    start: int
    original: str
    text: str
    line: int
    operator: str
    prior: float = 1.0

    @property
    def end(self) -> int:
        return self.start + len(self.original)

    def apply(self, source: str) -> str:
        """`source` with the edit made; raises AssertionError when the span does not hold `original`."""
        assert source[self.start : self.end] == self.original, f"{self.path}:{self.line} has changed"
        return source[: self.start] + self.text + source[self.end :]

"""What a repair model is shown of a file, and how its answers become edits: lines around a bug, old lines, new lines.

The model was trained on whole functions (`data/repair_rows`), and on parts of them; what it is shown here has the same
form. Positions are characters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from riallm.agent.client import INFILL
from riallm.code.edit import Edit
from riallm.code.source import Source
from riallm.data.repair_rows import MOST_LINES, lines_of

STRIDE = 12
"""Lines by which the part of a long function moves, so that neighbouring lines share one."""


MOST_OLD_LINES = 8
"""Lines that an edit of a model replaces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """Whole lines of a file, `start` to `end`."""

    path: str
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Whole lines of a passage without the last line end, and what they become."""

    old: str
    new: str


def passage(source: Source, line: int, room: Callable[[str], bool] = lambda text: True) -> Passage:
    """The function around a line when it is short and there is `room` for it, otherwise lines around the line."""
    starts, text = source.line_starts, source.text
    first, last = 1, len(starts)
    code = text[starts[line - 1] : source.line_end(starts[line - 1])]
    function = source.function_at(starts[line - 1] + len(code) - len(code.lstrip()))
    if function is not None:
        first = min([function.lineno, *(each.lineno for each in function.decorator_list)])
        last = function.end_lineno or last
    if last - first >= MOST_LINES:
        middle = first + (line - first) // STRIDE * STRIDE + STRIDE // 2
        first, last = max(first, middle - MOST_LINES // 2), min(last, middle + MOST_LINES // 2)
    while True:
        start, end = starts[first - 1], starts[last] if last < len(starts) else len(text)
        if first >= last or room(text[start:end]):
            return Passage(path=source.path, text=text[start:end], start=start, end=end)
        if line - first > last - line:
            first += max(1, (line - first) // 4)
        else:
            last -= max(1, (last - line) // 4)


def change(shown: Passage, edit: Edit) -> Change | None:
    """An edit of the file as a change of the passage, with more lines before it where the lines alone are ambiguous;
    None for an edit outside, or where no number of lines says which ones are meant."""
    if not (shown.start <= edit.start and edit.end <= shown.end):
        return None
    inner = Edit(
        path=edit.path,
        start=edit.start - shown.start,
        original=edit.original,
        text=edit.text,
        line=edit.line,
        operator=edit.operator,
    )
    start, end, new = lines_of(shown.text, inner)
    while shown.text.count(shown.text[start:end].rstrip("\n")) > 1:
        if start == 0:
            return None
        before = shown.text.rfind("\n", 0, start - 1) + 1
        new, start = shown.text[before:start] + new, before
    return Change(old=shown.text[start:end].rstrip("\n"), new=new.rstrip("\n"))


def olds(shown: Passage) -> list[str]:
    """What a bug's old lines may be: each line of code, with lines before it where it stands in the passage twice."""
    found, at = [], 0
    for line in shown.text.splitlines(keepends=True):
        start, end = at, at + len(line.rstrip("\r\n"))
        at += len(line)
        if not line.strip():
            continue
        while start and shown.text.count(shown.text[start:end]) > 1:
            start = shown.text.rfind("\n", 0, start - 1) + 1
        if shown.text.count(shown.text[start:end]) == 1:
            found.append(shown.text[start:end])
    return found


def spans(shown: Passage, old: str) -> list[str]:
    """`old`, one of `olds`, and what it is with each number of lines more that a bug may have spoilt with it."""
    start = shown.text.index(old)
    at, found = start, [old]
    lines = shown.text[start:].splitlines(keepends=True)[: old.count("\n") + MOST_OLD_LINES]
    for number, line in enumerate(lines):
        at += len(line)
        if number > old.count("\n") and line.strip():
            found.append(shown.text[start:at].rstrip("\r\n"))
    return found


def edit_of(source: Source, shown: Passage, made: Change, prior: float) -> Edit | None:
    """A model's answer as an edit of the file, as small as whole words allow; None where the old lines are not there,
    stand there twice, or nothing changes."""
    if not made.old.strip() or shown.text.count(made.old) != 1:
        return None
    at = shown.text.index(made.old)
    old, new = made.old, made.new
    if not new and shown.text[at + len(old) : at + len(old) + 1] == "\n":
        old += "\n"  # lines that go take their end along
    before, after = _common(old, new)
    if before + after >= max(len(old), len(new)) and len(old) == len(new):
        return None
    start = shown.start + at + before
    return Edit(
        path=shown.path,
        start=start,
        original=old[before : len(old) - after],
        text=new[before : len(new) - after],
        line=source.line_of(start),
        operator=INFILL,
        prior=prior,
    )


def _common(old: str, new: str) -> tuple[int, int]:
    """Characters that both begin with and both end with, words kept whole."""
    shorter = min(len(old), len(new))
    before = 0
    while before < shorter and old[before] == new[before]:
        before += 1
    after = 0
    while after < shorter - before and old[-1 - after] == new[-1 - after]:
        after += 1

    def inside(text: str, at: int) -> bool:
        return 0 < at < len(text) and _word(text[at - 1]) and _word(text[at])

    while before and (inside(old, before) or inside(new, before)):
        before -= 1
    while after and (inside(old, len(old) - after) or inside(new, len(new) - after)):
        after -= 1
    return before, after


def _word(char: str) -> bool:
    return char.isalnum() or char == "_"

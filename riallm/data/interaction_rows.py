"""What the supervised stages of a model with a memory read: files of JSON lines, a row a line, found again by number.

    text          {"text": "..."}; other columns are let be
    interaction   {"query": "...", "answer": "...", "think": "..."}
    conversation  {"query": "...", "answer": "...", "interactions": [{"query": "...", "answer": "..."}, ...]}, or all of
                  them in `interactions`; "system": "..." may stand beside them

`think`, reasoning before the answer, may be left out everywhere, and a column that is null counts as left out. A row is
read when it is asked for, so a file may be larger than the machine's memory; what is kept is where each row begins and
how much text it has.
"""

from __future__ import annotations

import json
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from riallm.core.errors import UsageError

Form = Literal["text", "interaction", "conversation"]
_SAID = ("query", "answer", "think")
_KNOWN: Mapping[Form, tuple[str, ...]] = {
    "interaction": _SAID,
    "conversation": (*_SAID, "interactions", "system"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A query and its answer. think: reasoning before it. heard: nobody answers, as with a system's prompt; the
    interaction is remembered, and nothing of it is learned to say."""

    query: str
    answer: str
    think: str | None = None
    heard: bool = False

    @property
    def num_chars(self) -> int:
        """Of all of it."""
        return len(self.query) + len(self.answer) + len(self.think or "")


class Rows:
    """Rows of one or several files, numbered through. `sizes`: characters of each."""

    def __init__(self, paths: Sequence[Path], form: Form) -> None:
        """Reads every file once. Raises UsageError, which names file and line, for a row that is not of the form, and
        for files that are not there or hold none; empty lines are passed over."""
        self.paths, self.form = tuple(paths), form
        self.sizes = array("Q")
        self._begins, self._lines = array("Q"), array("Q")
        self._firsts: list[int] = []
        for path in self.paths:
            self._firsts.append(len(self.sizes))
            for line, begin, row in _read(path, form):
                self._begins.append(begin)
                self._lines.append(line)
                self.sizes.append(len(row) if isinstance(row, str) else sum(each.num_chars for each in row))
        if not self.sizes:
            names = ", ".join(str(path) for path in self.paths) or "no file"
            raise UsageError(f"{names}: no row; expected one JSON object a line, of the form '{form}'")

    def __len__(self) -> int:
        return len(self.sizes)

    def where(self, number: int) -> str:
        """File and line of a row, for messages."""
        return f"{self._path(number).name}:{self._lines[number]}"

    def text(self, number: int) -> str:
        """A row of the form "text"."""
        row = self._row(number)
        assert isinstance(row, str), "these rows are interactions"
        return row

    def said(self, number: int) -> tuple[Said, ...]:
        """A row of the other forms, one interaction or several."""
        row = self._row(number)
        assert not isinstance(row, str), "these rows are texts"
        return row

    def _path(self, number: int) -> Path:
        return self.paths[bisect_right(self._firsts, number) - 1]

    def _row(self, number: int) -> str | tuple[Said, ...]:
        path = self._path(number)
        with path.open("rb") as file:
            file.seek(self._begins[number])
            return _parsed(file.readline(), self.form, self.where(number))


def _read(path: Path, form: Form) -> Iterator[tuple[int, int, str | tuple[Said, ...]]]:
    """(line from 1 on, where it begins in bytes, row)."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read ({error.strerror}); expected JSON lines of the form '{form}'"
        ) from None
    with file:
        begin = 0
        for number, line in enumerate(file, 1):
            if number == 1 and line.startswith(b"PAR1"):
                raise UsageError(f"{path} is a Parquet file; write its rows as JSON, a line each")
            if line.strip():
                yield number, begin, _parsed(line, form, f"{path.name}:{number}")
            begin += len(line)


def _parsed(line: bytes, form: Form, where: str) -> str | tuple[Said, ...]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # what is no UTF-8 included
        raise UsageError(f"{where}: no JSON ({error})") from None
    if not isinstance(row, dict):
        raise UsageError(f"{where}: expected an object, got {type(row).__name__}")
    if form == "text":
        return _text(row, "text", where)
    unknown = _unknown(row, form)
    if unknown:
        raise UsageError(
            f"{where}: no {', '.join(unknown)} in the form '{form}', which has {', '.join(_KNOWN[form])}; take such "
            "columns out"
        )
    found = [_said(row, where)] if form == "interaction" else _conversation(row, where)
    return tuple(found)


def _unknown(row: Mapping[str, Any], form: Form) -> list[str]:
    """Columns that the form does not have. Exports write one that only some rows have into all of them, as null."""
    return sorted(name for name, value in row.items() if value is not None and name not in _KNOWN[form])


def _conversation(row: dict[str, Any], where: str) -> Iterator[Said]:
    if row.get("system") is not None:
        yield Said(query=_text(row, "system", where), answer="", heard=True)
    first = any(row.get(name) is not None for name in _SAID)
    if first:
        yield _said(row, where)
    others = row.get("interactions") or []
    if not isinstance(others, list) or not (others or first):
        raise UsageError(f"{where}: interactions is {others!r}; expected a list of at least one")
    for number, each in enumerate(others):
        place = f"{where}: interactions[{number}]"
        if not isinstance(each, dict) or _unknown(each, "interaction"):
            raise UsageError(f"{place}: expected an object of {', '.join(_SAID)}, got {str(each)[:80]}")
        yield _said(each, place)


def _said(row: Mapping[str, Any], where: str) -> Said:
    think = None if row.get("think") is None else _text(row, "think", where)
    return Said(query=_text(row, "query", where), answer=_text(row, "answer", where), think=think)


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{where}: {name} is {value!r}; expected text")
    return value

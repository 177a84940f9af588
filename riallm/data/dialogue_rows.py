"""What the reinforcement and preference stages read: a conversation a line, as JSON.

{"interactions": [{"query": "My dog is called Rex.", "answer": "Noted."},
                  {"query": "What is my dog called?", "answer": "It is Rex.", "asked": true, "fact": "Rex"}]}
{"interactions": [{"query": "My dog is called Rex.", "accepted": {"answer": "Noted."}},
                  {"query": "What is my dog called?", "accepted": {"answer": "Rex."},
                   "rejected": {"answer": "Max."}, "neutral": {"answer": "A dog."}}]}
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from riallm.core.config import from_json
from riallm.core.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """An interaction of memory reinforcement learning. asked: the model answers it itself, and `answer` is the right
    one. fact: what of the answer was told in an earlier interaction, so that a memory is needed; none: it needs none.
    think: reasoning before the answer."""

    query: str
    answer: str
    think: str | None = None
    asked: bool = False
    fact: str | None = None

    def __post_init__(self) -> None:
        if self.fact is not None and (not self.asked or not self.fact or self.fact not in self.answer):
            raise UsageError(f"fact is {self.fact!r}: it stands in the answer of an interaction that is asked")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """think: reasoning before it."""

    answer: str
    think: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """An interaction of the preference stage. rejected: a worse answer; without one the accepted is only remembered.
    neutral: one whose odds shall stay, for the anchored variant."""

    query: str
    accepted: Answer
    rejected: Answer | None = None
    neutral: Answer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quizzed:
    """A conversation of memory reinforcement learning."""

    interactions: tuple[Asked, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A conversation of the preference stage."""

    interactions: tuple[Choice, ...]


_Row = TypeVar("_Row", Quizzed, Chosen)


def read(path: Path, kind: type[_Row]) -> Iterator[_Row]:
    """The rows of a file; empty lines are passed over. Raises UsageError, which names the line, for a file that is not
    there, for what is no JSON or no such row, and for a conversation without interactions."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # JSON may hold other ends of lines as they are
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path.name}:{number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{where}: no JSON ({error})") from None
        try:
            row = from_json(kind, value, where=where)
        except UsageError as error:
            raise UsageError(str(error) if where in str(error) else f"{where}: {error}") from None
        if not row.interactions:
            raise UsageError(f"{where}: a conversation without interactions")
        yield row

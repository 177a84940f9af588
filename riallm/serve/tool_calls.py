"""Calls of tools, read out of an answer's text while it is written, as Hermes and Qwen write them:

<tool_call>{"name": "read", "arguments": {"path": "a.py"}}</tool_call>
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass

from riallm.serve.grammar import CLOSE, OPEN

_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)')


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """A call begins; index counts the calls of an answer."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """More of a call's arguments, a piece of JSON."""

    index: int
    text: str


Event = str | Begin | Arguments
"""A str is text of the answer outside of calls."""


class CallReader:
    """For one answer: `feed` its text, then `finish`. What looks like a call of a tool that there is not, or is no
    JSON, comes out as the text that it is. White space around calls belongs to nobody."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._rest = ""
        self._inside = self._trim = False
        self._blank = ""  # white space before what may be a call
        self._scan: _Scan | None = None
        self.calls = 0
        self.closed = 0

    def feed(self, text: str) -> list[Event]:
        """What became sure with this text."""
        self._rest += text
        events: list[Event] = []
        while True:
            before = len(events), self._rest, self._inside, self._scan
            events += self._step()
            if before == (len(events), self._rest, self._inside, self._scan):
                return events

    def finish(self) -> list[Event]:
        """What was held back."""
        events: list[Event] = []
        if self._inside:
            if self._scan is None:
                events += self._whole(self._rest, "")
            elif not self._scan.over:
                self.closed += 1
        elif self._rest.strip() or not self.calls:
            events.append(self._rest)
        self._rest, self._inside, self._scan = "", False, None
        return [event for event in events if event != ""]

    def _step(self) -> list[Event]:
        if not self._inside:
            return self._outside()
        if self._scan is None:
            return self._before_arguments()
        if not self._scan.over:
            piece, self._rest = self._scan.take(self._rest)
            return [Arguments(index=self.calls - 1, text=piece)] if piece else []
        _, found, behind = self._rest.partition(CLOSE)
        if found:
            self._leave(behind)
        return []

    def _outside(self) -> list[Event]:
        if self._trim:
            self._rest = self._rest.lstrip()
            self._trim = not self._rest
        text, found, behind = self._rest.partition(OPEN)
        if found:
            self._inside, self._rest = True, behind
            said = text.rstrip()
            self._blank = text[len(said) :]
            return [said] if said else []
        keep = len(self._rest) - _may_open(self._rest)
        keep = len(self._rest[:keep].rstrip())
        if not keep:
            return []
        text, self._rest = self._rest[:keep], self._rest[keep:]
        return [text]

    def _before_arguments(self) -> list[Event]:
        head = _HEAD.match(self._rest)
        if head is not None:
            name = _loaded(head[1])
            if name in self._names:
                self._scan, self._rest = _Scan(), self._rest[head.end() :]
                return [self._begin(str(name))]
        body, found, behind = self._rest.partition(CLOSE)
        if not found:
            return []
        self._leave(behind)
        return self._whole(body, CLOSE)

    def _whole(self, body: str, close: str) -> list[Event]:
        """A call whose text is there: its keys in another order, its arguments as text."""
        value = _loaded(body)
        if isinstance(value, dict) and value.get("name") in self._names:
            arguments = value.get("arguments", value.get("parameters", {}))
            text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
            begin = self._begin(value["name"])
            if not close:
                self.closed += 1
            return [begin, Arguments(index=self.calls - 1, text=text)]
        self.closed -= 1 if close else 0
        self._trim = False
        return [self._blank + OPEN + body + close]

    def _begin(self, name: str) -> Begin:
        self.calls += 1
        return Begin(index=self.calls - 1, id=f"call_{secrets.token_hex(12)}", name=name)

    def _leave(self, behind: str) -> None:
        self._inside, self._scan, self._rest = False, None, behind
        self._trim = True
        self.closed += 1


class _Scan:
    """Where a JSON object ends."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_text = self._escaped = False
        self.over = False

    def take(self, text: str) -> tuple[str, str]:
        """(what belongs to the object, what does not)."""
        for at, letter in enumerate(text):
            if self._in_text:
                if self._escaped:
                    self._escaped = False
                elif letter == "\\":
                    self._escaped = True
                elif letter == '"':
                    self._in_text = False
            elif letter == '"':
                self._in_text = True
            elif letter in "{[":
                self._depth += 1
            elif letter in "}]":
                self._depth -= 1
                if self._depth == 0:
                    self.over = True
                    return text[: at + 1], text[at + 1 :]
        return text, ""


def _may_open(text: str) -> int:
    """How many letters at the end may become the begin of a call."""
    return next((size for size in range(min(len(OPEN) - 1, len(text)), 0, -1) if text.endswith(OPEN[:size])), 0)


def _loaded(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None

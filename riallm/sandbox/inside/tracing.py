"""What a test executed: lines, calls during import, frames of an exception."""

from __future__ import annotations

import functools
import os
import sys
import threading
import traceback
import types
from collections.abc import Callable
from typing import Any

MESSAGE_CHARS = 2000


@functools.cache
def real(path: str) -> str:
    """`os.path.realpath`, asked once: a leaf inherits what the hot process has looked up."""
    return os.path.realpath(path)


class Tracer:
    """Collects executed lines of the watched files, and stops a leaf that executes too many."""

    def __init__(
        self, watched: dict[str, str], limit: int | None = None, overrun: Callable[[], None] | None = None
    ) -> None:
        self.watched, self.limit, self.overrun = watched, limit, overrun
        self.known: dict[str, Any] = {}
        self.lines: dict[str, set[int]] = {}
        self.events = 0

    def reset(self) -> None:
        self.lines, self.events = {}, 0
        self.known.clear()

    def __call__(self, frame: types.FrameType, event: str, arg: Any) -> Any:
        name = frame.f_code.co_filename
        if name not in self.known:
            path = self.watched.get(real(name))
            self.known[name] = self.local(path) if path else None
        return self.known[name]

    def local(self, path: str) -> Any:
        seen = self.lines.setdefault(path, set())

        def trace(frame: types.FrameType, event: str, arg: Any) -> Any:
            if event == "line":
                seen.add(frame.f_lineno)
                self.events += 1
                if self.limit is not None and self.events > self.limit and self.overrun is not None:
                    self.overrun()
            return trace

        return trace

    def install(self) -> None:
        sys.settrace(self)
        threading.settrace(self)

    @staticmethod
    def remove() -> None:
        sys.settrace(None)
        threading.settrace(None)

    def bitsets(self) -> dict[str, str]:
        return {path: f"{sum(1 << line for line in lines):x}" for path, lines in self.lines.items() if lines}


class ImportCalls:
    """Which functions of the project ran while it was imported: their edits need a new import."""

    def __init__(self, root: str) -> None:
        self.root = root + os.sep
        self.known: dict[str, str] = {}
        self.keys: set[tuple[str, str, int]] = set()

    def __call__(self, frame: types.FrameType, event: str, arg: Any) -> Any:
        code = frame.f_code
        path = self.known.get(code.co_filename)
        if path is None:
            name = real(code.co_filename)
            path = self.known[code.co_filename] = name if name.startswith(self.root) else ""
        if path:
            self.keys.add((path, code.co_name, code.co_firstlineno))


def frames_of(error: BaseException | None, root: str) -> list[list[Any]]:
    """[path, line, function] of the project's frames of an exception, its causes first, innermost last."""
    found: list[list[Any]] = []
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    for link in reversed(chain):
        for frame, line in traceback.walk_tb(link.__traceback__):
            path = real(frame.f_code.co_filename)
            if path.startswith(root + os.sep):
                found.append([os.path.relpath(path, root), line, frame.f_code.co_name])
    return found[-40:]


def stack_of(frame: types.FrameType | None, root: str) -> list[list[Any]]:
    """[path, line, function] of the project's frames that are being executed, innermost last."""
    found: list[list[Any]] = []
    while frame is not None:
        path = real(frame.f_code.co_filename)
        if path.startswith(root + os.sep):
            found.insert(0, [os.path.relpath(path, root), frame.f_lineno, frame.f_code.co_name])
        frame = frame.f_back
    return found[-40:]


def describe(error: BaseException) -> str:
    """Type and text of an exception, in one string of bounded length; a failing __str__ is no news."""
    try:
        text = str(error)
    except Exception:
        text = "(its text cannot be shown)"
    return (f"{type(error).__name__}: {text}")[:MESSAGE_CHARS]

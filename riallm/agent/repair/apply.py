"""Showing and making the change: a unified diff, and a write that touches the one file or nothing."""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Iterator
from pathlib import Path

from riallm.agent.repair.program import Program
from riallm.code.edit import Edit
from riallm.core import locks
from riallm.core.errors import ProjectError, UsageError
from riallm.core.files import atomic_write, sha256, state_home


def unified_diff(program: Program, edit: Edit) -> str:
    """The edit as `git apply` reads it. Line ends stay as the file has them."""
    source = program.source(edit.path)
    assert source is not None
    old, new = (text.splitlines(keepends=True) for text in (source.text, edit.apply(source.text)))
    lines = []
    for line in difflib.unified_diff(old, new, f"a/{edit.path}", f"b/{edit.path}"):
        lines.append(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n")
    return "".join(lines)


def apply(program: Program, edit: Edit) -> Path:
    """Write the edited file in one step, keeping its mode; raises UsageError and leaves it alone if it may not."""
    source = program.source(edit.path)
    assert source is not None
    path = program.project.root / edit.path
    if path.resolve() != path:
        raise UsageError(f"{edit.path} is reached through a symbolic link and was not changed; apply the diff by hand")
    if path.read_bytes() != source.encode(source.text):
        raise UsageError(f"{edit.path} changed while the repair was running; run it again")
    if not path.stat().st_mode & 0o222 or not os.access(path, os.W_OK):
        raise UsageError(f"{edit.path} is read-only and was not changed; make it writable, or apply the diff by hand")
    try:
        atomic_write(path, program.edited(edit))
    except OSError as error:
        raise UsageError(f"{edit.path} could not be written and is as it was: {error}") from None
    return path


@contextlib.contextmanager
def only_one(root: Path) -> Iterator[None]:
    """Hold the project for one repair at a time; ProjectError names the process that has it."""
    folder = state_home() / "locks"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    busy = f"another riallm fix (process {{holder}}) is working on {root}; wait for it, or end it"
    with locks.only_one(folder / sha256(str(root).encode())[:24], busy, error=ProjectError):
        yield

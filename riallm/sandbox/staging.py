"""The workspace as a command would see it: the kept changes over the real folder, read and written from our side."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from riallm.core.errors import UsageError
from riallm.sandbox import layer
from riallm.sandbox.base import Change, ChangeKind

_MOST_LINKS = 40
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read(workspace: Path, stage: Path | None, relative: Path) -> bytes:
    """Content of a file of the view.

    Raises FileNotFoundError when it is absent, IsADirectoryError for a folder, UsageError when a symlink leads
    out of the workspace or what is there is neither.
    """
    parts = _resolve(workspace, stage, relative)
    found = _lookup(workspace, stage, parts)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(relative))
    path, info = found
    if stat.S_ISDIR(info.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(relative))
    if not stat.S_ISREG(info.st_mode):
        raise UsageError(f"{str(relative)!r} is not a regular file")
    staged = stage is not None and path.startswith(f"{stage}/")
    with os.fdopen(layer.open_ours(os.fsencode(path)) if staged else os.open(path, _READ), "rb") as file:
        return file.read()


def write(workspace: Path, stage: Path, relative: Path, data: bytes, owner: int | None) -> None:
    """Put a file into the kept changes; an existing file keeps its permission bits. UsageError as for `read`."""
    parts = _resolve(workspace, stage, relative)
    before = _lookup(workspace, stage, parts)
    if before is not None and stat.S_ISDIR(before[1].st_mode):
        raise UsageError(f"{str(relative)!r} is a folder and cannot be written as a file")
    at = os.fsencode(stage)
    for depth in range(1, len(parts)):
        shown = _lookup(workspace, stage, parts[:depth])
        if shown is not None and not stat.S_ISDIR(shown[1].st_mode):
            raise UsageError(f"{str(relative)!r} goes through a file")
        at += b"/" + os.fsencode(parts[depth - 1])
        if not (os.path.isdir(at) and not os.path.islink(at)):
            gone = os.path.lexists(at)
            layer.remove(at)
            layer.make_folder(at, shown[1].st_mode if shown else 0o755, owner)
            if gone:
                layer.make_opaque(at)
    target = at + b"/" + os.fsencode(parts[-1])
    layer.remove(target)
    mode = stat.S_IMODE(before[1].st_mode) & 0o777 if before else 0o644
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        if owner is not None:
            os.fchown(descriptor, owner, owner)
        os.fchmod(descriptor, mode)


def changes(stage: Path | None) -> tuple[Change, ...]:
    """What the kept changes hold, sorted by path; folders only where they are new or replaced."""
    found = []
    for name, info in layer.walk(os.fsencode(stage)) if stage else ():
        path = os.fsdecode(name)
        if layer.is_whiteout(info):
            found.append(Change(path=path, kind=ChangeKind.DELETED))
        elif stat.S_ISLNK(info.st_mode):
            found.append(Change(path=path, kind=ChangeKind.LINK))
        elif stat.S_ISREG(info.st_mode):
            found.append(Change(path=path, kind=ChangeKind.WRITTEN))
        elif layer.is_opaque(os.fsencode(stage or "") + b"/" + name):
            found.append(Change(path=path, kind=ChangeKind.FOLDER))
    return tuple(found)


def _lookup(workspace: Path, stage: Path | None, parts: list[str]) -> tuple[str, os.stat_result] | None:
    """The entry at `parts`, whose last one is not followed: its path on disk and what it is."""
    hidden = False
    for depth in range(1, len(parts) + 1):
        tail = "/".join(parts[:depth])
        if stage is None:
            break
        path = f"{stage}/{tail}"
        info = _lstat(path)
        if info is None:
            continue
        if layer.is_whiteout(info):
            return None
        if not stat.S_ISDIR(info.st_mode) or depth == len(parts):
            return (path, info) if depth == len(parts) else None
        hidden = hidden or layer.is_opaque(os.fsencode(path))
    if hidden:
        return None
    path = f"{workspace}/{'/'.join(parts)}"
    info = _lstat(path)
    return None if info is None else (path, info)


def _resolve(workspace: Path, stage: Path | None, relative: Path) -> list[str]:
    """`relative` with the symlinks of the view followed, as long as they stay inside."""
    todo = list(relative.parts)
    done: list[str] = []
    for _ in range(_MOST_LINKS * 100):
        if not todo:
            return done
        part = todo.pop(0)
        if part == "..":
            if not done:
                break
            done.pop()
            continue
        found = _lookup(workspace, stage, [*done, part])
        if found is None or not stat.S_ISLNK(found[1].st_mode):
            done.append(part)
            continue
        target = Path(os.readlink(found[0]))
        if target.is_absolute():
            if not target.is_relative_to(workspace):
                break
            target, done = target.relative_to(workspace), []
        todo = [*target.parts, *todo]
    raise UsageError(f"{str(relative)!r} leads out of the workspace through a symlink")


def _lstat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None

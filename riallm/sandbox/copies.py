"""A private copy of the workspace, for where an overlay is not possible; what changed is found afterwards.

A change is known by inode, change time, size and mode against the state right after copying: the change time is
set by the kernel and cannot be forged from inside.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from riallm.sandbox import layer

Mark = tuple[int, int, int, int]
Snapshot = dict[bytes, Mark]


def measure(source: bytes, left_out: Sequence[bytes], base: bytes) -> int:
    """Bytes that a copy of `source` takes on a tmpfs, rounded up to pages."""
    total = 1 << 16
    for path, info in _entries(source, left_out, base):
        del path
        total += 4096 + (info.st_size + 4095) // 4096 * 4096
    return total


def make(
    source: bytes,
    target: bytes,
    *,
    stage: bytes | None,
    left_out: Sequence[bytes],
    base: bytes,
    owner: int | None,
) -> Snapshot:
    """Copy `source` into the empty folder `target`, then the kept changes of `stage` over it.

    What we may not read is left out: the command, which runs as the same user or as less, could not read it either.
    left_out: absolute paths below `base` (the real path of `source`) that are made as empty folders.
    """
    for path, info in _entries(source, left_out, base):
        if stat.S_ISDIR(info.st_mode):
            layer.make_folder(target + b"/" + path, info.st_mode, owner)
        else:
            layer.copy_entry(source + b"/" + path, target + b"/" + path, info, owner, ours=False)
    if stage is not None:
        overlay(stage, target, owner)
    return snapshot(target)


def overlay(stage: bytes, target: bytes, owner: int | None) -> None:
    """Carry out the changes of a layer on a plain folder of ours."""
    for entry in os.scandir(stage):
        info, other = os.lstat(entry.path), target + b"/" + entry.name
        if layer.is_whiteout(info):
            layer.remove(other)
        elif stat.S_ISDIR(info.st_mode):
            if layer.is_opaque(entry.path) or not os.path.isdir(other) or os.path.islink(other):
                layer.remove(other)
                layer.make_folder(other, info.st_mode, owner)
            overlay(entry.path, other, owner)
        else:
            layer.copy_entry(entry.path, other, info, owner)


def snapshot(target: bytes) -> Snapshot:
    """The marks of everything below `target`."""
    return {path: _mark(info) for path, info in layer.walk(target)}


def collect(target: bytes, before: Snapshot, stage: bytes, owner: int | None) -> None:
    """Add what differs from `before` to the kept changes in `stage`."""
    seen, folders = set(), {b""}
    for path, info in layer.walk(target):
        seen.add(path)
        if stat.S_ISDIR(info.st_mode):
            folders.add(path)
        old = before.get(path)
        other = stage + b"/" + path
        if stat.S_ISDIR(info.st_mode):
            was_folder = old is not None and stat.S_ISDIR(old[3])
            if was_folder and old is not None and old[3] == info.st_mode:
                continue
            if not os.path.isdir(other) or os.path.islink(other):
                _lead(stage, path, owner)
                layer.remove(other)
                layer.make_folder(other, info.st_mode, owner)
                if not was_folder:
                    layer.make_opaque(other)
        elif old != _mark(info):
            _lead(stage, path, owner)
            layer.copy_entry(target + b"/" + path, other, info, owner)
    for path in sorted(set(before) - seen, key=lambda p: p.count(b"/")):
        if os.path.dirname(path) in folders:  # otherwise its folder is gone, and that is said already
            _lead(stage, path, owner)
            layer.whiteout(stage + b"/" + path)


def _mark(info: os.stat_result) -> Mark:
    return (info.st_ino, info.st_ctime_ns, info.st_size, info.st_mode)


def _lead(stage: bytes, path: bytes, owner: int | None) -> None:
    """Make the folders that lead to `path` in a layer."""
    at = stage
    for part in path.split(b"/")[:-1]:
        at += b"/" + part
        if not os.path.isdir(at):
            layer.make_folder(at, 0o755, owner)


def _entries(source: bytes, left_out: Sequence[bytes], base: bytes) -> list[tuple[bytes, os.stat_result]]:
    hidden = {path[len(base) + 1 :] for path in left_out}
    found = []
    for path, info in layer.walk(source, ours=False):
        parts = path.split(b"/")
        if not any(b"/".join(parts[:n]) in hidden for n in range(1, len(parts))):
            found.append((path, info))
    return found

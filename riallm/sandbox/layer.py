"""Changes as a folder in overlay format: new content as it is, deletions as whiteouts, replaced folders as opaque.

The kept changes of a sandbox live in one such folder ("staging"). The kernel reads it as a lower layer; here it is
merged from the layer that a command left behind, listed, and copied. Nothing that a command made is ever opened
through a symlink, and what is neither file, folder nor symlink is left out. Format: the kernel's overlayfs.rst.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator

_OPAQUE = b"user.overlay.opaque"
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE = 1 << 20


def is_whiteout(info: os.stat_result) -> bool:
    """Whether an entry says "deleted": a character device 0/0."""
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def is_opaque(path: bytes) -> bool:
    """Whether a folder hides what lies below it instead of merging with it."""
    try:
        return os.getxattr(path, _OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False


def make_opaque(path: bytes) -> None:
    """Let a folder hide what lies below it."""
    os.setxattr(path, _OPAQUE, b"y", follow_symlinks=False)


def whiteout(path: bytes) -> None:
    """Say "deleted" at `path`, whatever stood there before."""
    remove(path)
    os.mknod(path, stat.S_IFCHR, 0)


def remove(path: bytes) -> None:
    """Delete a file or a whole folder; symlinks are deleted, not followed. Nothing there is no error."""
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(info.st_mode):
        os.unlink(path)
        return
    os.chmod(path, 0o700)
    for entry in list(os.scandir(path)):
        remove(entry.path)
    os.rmdir(path)


def open_ours(path: bytes) -> int:
    """Open a file in a folder of ours for reading, also when a command has closed it; its permissions stay."""
    try:
        return os.open(path, _READ)
    except PermissionError:
        mode = stat.S_IMODE(os.lstat(path).st_mode)
        os.chmod(path, 0o600)
        reader = os.open(path, _READ)
        os.fchmod(reader, mode)
        return reader


def copy_file(source: bytes, target: bytes, info: os.stat_result, owner: int | None) -> None:
    """Copy a regular file's bytes, permission bits (no setuid, setgid) and time; `target` must not exist."""
    reader = open_ours(source)
    try:
        if not stat.S_ISREG(os.fstat(reader).st_mode):
            return
        writer = os.open(target, _NEW, 0o600)
        try:
            while piece := os.read(reader, _PIECE):
                view = memoryview(piece)
                while view:
                    view = view[os.write(writer, view) :]
            if owner is not None:
                os.fchown(writer, owner, owner)
            os.fchmod(writer, stat.S_IMODE(info.st_mode) & 0o777)
            os.utime(writer, ns=(info.st_atime_ns, info.st_mtime_ns))
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def copy_entry(source: bytes, target: bytes, info: os.stat_result, owner: int | None, *, ours: bool = True) -> bool:
    """Copy one file or symlink over whatever is at `target`; False for kinds that are left out.

    What is not ours and may not be read is left out too.
    """
    if not (stat.S_ISREG(info.st_mode) or stat.S_ISLNK(info.st_mode)):
        return False
    remove(target)
    if stat.S_ISLNK(info.st_mode):
        os.symlink(os.readlink(source), target)
        if owner is not None:
            os.lchown(target, owner, owner)
        return True
    if not ours and not os.access(source, os.R_OK, effective_ids=True):
        return False
    copy_file(source, target, info, owner)
    return True


def make_folder(path: bytes, mode: int, owner: int | None) -> None:
    """A new folder with these permission bits; its owner can always enter and write."""
    os.mkdir(path, 0o700)
    if owner is not None:
        os.chown(path, owner, owner)
    os.chmod(path, stat.S_IMODE(mode) & 0o777 | 0o700)


def merge(upper: bytes, staging: bytes, owner: int | None) -> None:
    """Add the changes of the layer `upper` to those in `staging`; later ones win."""
    for entry in sorted(os.scandir(upper), key=lambda e: e.name):
        source, target = entry.path, staging + b"/" + entry.name
        info = os.lstat(source)
        if is_whiteout(info):
            whiteout(target)
        elif stat.S_ISDIR(info.st_mode):
            os.chmod(source, 0o700)
            hides = is_opaque(source)
            before = _lstat(target)
            if before is not None and (hides or not stat.S_ISDIR(before.st_mode)):
                hides = hides or not stat.S_ISDIR(before.st_mode)
                remove(target)
                before = None
            if before is None:
                make_folder(target, info.st_mode, owner)
            if hides:
                make_opaque(target)
            merge(source, target, owner)
        else:
            copy_entry(source, target, info, owner)


def duplicate(source: bytes, target: bytes, owner: int | None) -> None:
    """A second copy of a layer, for changing it while the first is in use by a running command."""
    if is_opaque(source):
        make_opaque(target)
    for entry in os.scandir(source):
        info, other = os.lstat(entry.path), target + b"/" + entry.name
        if is_whiteout(info):
            whiteout(other)
        elif stat.S_ISDIR(info.st_mode):
            make_folder(other, info.st_mode, owner)
            duplicate(entry.path, other, owner)
        else:
            copy_entry(entry.path, other, info, owner)


def walk(layer: bytes, prefix: bytes = b"", *, ours: bool = True) -> Iterator[tuple[bytes, os.stat_result]]:
    """Every entry of a layer with its path from the top, folders before what they hold, sorted.

    In a folder of ours, folders that a command has closed are opened again; otherwise they are passed over.
    """
    with contextlib.suppress(FileNotFoundError):
        for entry in _entries(layer, ours):
            name = prefix + entry.name
            info = os.lstat(entry.path)
            yield name, info
            if stat.S_ISDIR(info.st_mode):
                yield from walk(entry.path, name + b"/", ours=ours)


def _entries(folder: bytes, ours: bool) -> list[os.DirEntry[bytes]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda e: e.name)
    except PermissionError:
        if not ours:
            return []
        os.chmod(folder, 0o700)
        return _entries(folder, False)


def _lstat(path: bytes) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None

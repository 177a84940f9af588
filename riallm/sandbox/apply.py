"""Bringing kept changes home: the trusted side writes them into a real folder, one component at a time.

Every folder on the way is opened by itself with O_NOFOLLOW relative to the one before, so no symlink, wherever
it comes from and whenever it appears, leads a write elsewhere. Files are replaced by a rename, so hard links to
the old file keep the old content. What could act later on the user's behalf is refused and told: setuid bits are
dropped, symlinks that lead out are not made, and of a `.git` folder only content comes home, never configuration.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from riallm.core.errors import SandboxError
from riallm.sandbox import layer
from riallm.sandbox.base import Applied

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Content of a repository, as against what git acts on: hooks, config, commondir, alternates, attributes, modules.
_GIT_CONTENT = (b"objects", b"refs", b"logs", b"HEAD", b"ORIG_HEAD", b"index", b"packed-refs", b"COMMIT_EDITMSG")
_REPOSITORY = {b"HEAD", b"objects", b"refs"}


@dataclass(slots=True)
class _Work:
    below: bytes
    written: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    count: int = 0

    def refuse(self, path: bytes, why: str) -> None:
        self.refused.append((os.fsdecode(path), why))

    def chosen(self, path: bytes) -> bool:
        return not self.below or path == self.below or path.startswith(self.below + b"/")

    def leads(self, path: bytes) -> bool:
        return self.below.startswith(path + b"/")


def bring_home(stage: Path, destination: Path, *, below: str = "") -> Applied:
    """Carry out the changes in `stage` on the folder `destination`; only those at or below `below`, if given.

    Raises SandboxError when the destination cannot be written; changes before that point stay made.
    """
    work = _Work(below=os.fsencode(below.strip("/")))
    try:
        top = os.open(destination.resolve(), _FOLDER)
        try:
            _folder(os.fsencode(stage), top, b"", work)
        finally:
            os.close(top)
    except OSError as error:
        raise SandboxError(f"changes could not be brought to {destination}: {error}") from error
    return Applied(written=tuple(work.written), deleted=tuple(work.deleted), refused=tuple(work.refused))


def _folder(source: bytes, target: int, prefix: bytes, work: _Work) -> None:
    for entry in sorted(os.scandir(source), key=lambda e: e.name):
        path = prefix + entry.name
        info = os.lstat(entry.path)
        if not work.chosen(path) and not work.leads(path):
            continue
        why = _refusal(path, source, info, target)
        if why:
            work.refuse(path, why)
        elif layer.is_whiteout(info):
            if _delete(target, entry.name):
                work.deleted.append(os.fsdecode(path))
        elif stat.S_ISDIR(info.st_mode):
            _enter(entry.path, target, path, info, work)
        elif stat.S_ISLNK(info.st_mode):
            _symlink(entry.path, target, path, work)
        elif stat.S_ISREG(info.st_mode):
            _file(entry.path, target, path, info, work)


def _enter(source: bytes, parent: int, path: bytes, info: os.stat_result, work: _Work) -> None:
    name = os.path.basename(path)
    before = _lstat(name, parent)
    if before is not None and not stat.S_ISDIR(before.st_mode):
        os.unlink(name, dir_fd=parent)
        before = None
    if before is None:
        os.mkdir(name, 0o700, dir_fd=parent)
    folder = os.open(name, _FOLDER, dir_fd=parent)
    try:
        if before is None:
            _adopt(folder, os.fstat(parent))
            os.fchmod(folder, stat.S_IMODE(info.st_mode) & 0o777 | 0o700)
            work.written.append(os.fsdecode(path) + "/")
        elif layer.is_opaque(source):
            kept = {e.name for e in os.scandir(source)}
            for old in os.listdir(folder):
                if os.fsencode(old) not in kept and not _refusal(path + b"/" + os.fsencode(old), source, info, folder):
                    _delete(folder, os.fsencode(old))
                    work.deleted.append(os.fsdecode(path) + "/" + old)
        _folder(source, folder, path + b"/", work)
    finally:
        os.close(folder)


def _file(source: bytes, parent: int, path: bytes, info: os.stat_result, work: _Work) -> None:
    name = os.path.basename(path)
    before = _lstat(name, parent)
    if before is not None and stat.S_ISDIR(before.st_mode):
        _delete(parent, name)
        before = None
    work.count += 1
    temporary = b".riallm-%d-%d" % (os.getpid(), work.count)
    reader = layer.open_ours(source)
    try:
        writer = os.open(temporary, _NEW, 0o600, dir_fd=parent)
        try:
            while piece := os.read(reader, 1 << 20):
                view = memoryview(piece)
                while view:
                    view = view[os.write(writer, view) :]
            model = before if before is not None and stat.S_ISREG(before.st_mode) else None
            _adopt(writer, model or os.fstat(parent))
            os.fchmod(writer, stat.S_IMODE(info.st_mode) & 0o777)
            os.replace(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=parent)
            raise
        finally:
            os.close(writer)
    finally:
        os.close(reader)
    if info.st_mode & 0o6000:
        work.refuse(path, "its setuid or setgid bit was dropped")
    work.written.append(os.fsdecode(path))


def _symlink(source: bytes, parent: int, path: bytes, work: _Work) -> None:
    target = os.readlink(source)
    where = os.path.normpath(b"/" + os.path.dirname(path) + b"/" + target)
    depth = 0
    for part in (os.path.dirname(path) + b"/" + target).split(b"/"):
        depth += {b"..": -1, b"": 0, b".": 0}.get(part, 1)
        if depth < 0:
            work.refuse(path, "a symlink that leads out of the folder")
            return
    if target.startswith(b"/"):
        work.refuse(path, "a symlink with an absolute target")
        return
    if b".git" in where.split(b"/"):
        work.refuse(path, "a symlink into a .git folder")
        return
    name = os.path.basename(path)
    _delete(parent, name)
    os.symlink(target, name, dir_fd=parent)
    if os.geteuid() == 0:
        owner = os.fstat(parent)
        os.chown(name, owner.st_uid, owner.st_gid, dir_fd=parent, follow_symlinks=False)
    work.written.append(os.fsdecode(path))


def _refusal(path: bytes, source: bytes, info: os.stat_result, target: int) -> str:
    """Why a change must not come home, or nothing."""
    parts = path.split(b"/")
    if b".git" in parts:
        at = parts.index(b".git")
        if at > 0:
            return "a .git below the top: git would act on it"
        if len(parts) == 1 and not stat.S_ISDIR(info.st_mode):
            return "the .git itself"
        if len(parts) == 1 and (before := _lstat(b".git", target)) is not None and not stat.S_ISDIR(before.st_mode):
            return "the .git itself"
        if len(parts) > 1 and parts[1] not in _GIT_CONTENT:
            return "configuration of git"
        if parts[1:4] == [b"objects", b"info", b"alternates"]:
            return "configuration of git"
        if stat.S_ISLNK(info.st_mode):
            return "a symlink in .git"
    elif parts[-1] in (b"config", b"hooks") and set(os.listdir(source)) >= _REPOSITORY:
        return "configuration of a bare git repository"
    return ""


def _delete(parent: int, name: bytes) -> bool:
    """Delete an entry of an open folder, whatever it is; False when there was none."""
    info = _lstat(name, parent)
    if info is None:
        return False
    if not stat.S_ISDIR(info.st_mode):
        os.unlink(name, dir_fd=parent)
        return True
    folder = os.open(name, _FOLDER, dir_fd=parent)
    try:
        for inner in os.listdir(folder):
            _delete(folder, os.fsencode(inner))
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=parent)
    return True


def _adopt(descriptor: int, model: os.stat_result) -> None:
    """Started as root, we leave files to the owner of the folder, not to root."""
    if os.geteuid() == 0:
        os.fchown(descriptor, model.st_uid, model.st_gid)


def _lstat(name: bytes, parent: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None

"""Writing big files so that an interruption costs little and a half-written model never looks whole.

Everything is written into a folder beside the place where it belongs, `.NAME.partial`, and moved at the end. A finished
file is named with its hash in `progress.json` there, and so is how far a long one has come; the next try goes on.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from riallm.core.errors import CheckpointError
from riallm.core.files import atomic_write, sha256, sync

Hear = Callable[[str, int, int], None]
"""Is told the name of what was done, bytes done so far, and bytes in all."""

JOURNAL = "progress.json"
SYNC_BYTES = 256 << 20
"""After so many bytes a long file is made safe, and how far it has come is noted."""
HASH_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A tensor of a file. num_bytes: of its data; padding: zeros behind it."""

    name: str
    num_bytes: int
    padding: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePlan:
    """A file that is known to the byte before a tensor is read: what it begins with, and what follows in order."""

    head: bytes
    items: tuple[Item, ...]

    @property
    def num_bytes(self) -> int:
        """Of the whole file."""
        return len(self.head) + sum(item.num_bytes + item.padding for item in self.items)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is to be written. files: name -> plan, in this order. chunks: the bytes of an item, in pieces. closing:
    from {name: {"bytes", "sha256"}} of all files, the small files that come last, in their order. identity: hash of
    all that the result depends on; an unfinished folder of another one is begun anew. sync_bytes: how much of a
    long file may have to be done again."""

    files: Mapping[str, FilePlan]
    chunks: Callable[[str], Iterable[memoryview]]
    closing: Callable[[Mapping[str, dict[str, Any]]], Mapping[str, bytes]]
    identity: str
    sync_bytes: int = SYNC_BYTES

    @property
    def num_bytes(self) -> int:
        """Of the big files."""
        return sum(plan.num_bytes for plan in self.files.values())


@dataclass(slots=True)
class Journal:
    """What is done: files with their hashes, and how many items of one more."""

    path: Path
    identity: str
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    items: dict[str, int] = field(default_factory=dict)

    def save(self) -> None:
        """Atomically, and safe against a power cut."""
        told = {"identity": self.identity, "files": self.files, "items": self.items}
        atomic_write(self.path, (json.dumps(told) + "\n").encode())

    @classmethod
    def of(cls, place: Path, identity: str) -> Journal:
        """What an earlier try left, where it is of the same work; else an empty one."""
        path = place / JOURNAL
        try:
            told = json.loads(path.read_text())
            if told["identity"] == identity:
                return cls(path, identity, told["files"], told["items"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # the first try, or one that ended before its first note
        return cls(path, identity)


@contextmanager
def scratch(target: Path, *, resumable: bool) -> Iterator[Path]:
    """A folder beside `target` to build in. resumable: it has a fixed name and stays when something goes wrong.
    Raises CheckpointError when the target is there, or somebody else builds it now."""
    if target.exists():
        raise CheckpointError(f"{target} is there already; remove it or name another")
    target.parent.mkdir(parents=True, exist_ok=True)
    if not resumable:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as name:
            yield Path(name)
        return
    place = partial_of(target)
    place.mkdir(exist_ok=True)
    descriptor = os.open(place, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckpointError(f"{target} is being written by another process; wait for it") from None
        yield place
        shutil.rmtree(place)
    finally:
        os.close(descriptor)


def partial_of(target: Path) -> Path:
    """Where an unfinished model lies."""
    return target.parent / f".{target.name}.partial"


def build(target: Path, work: Work, *, resumable: bool = False, hear: Hear | None = None) -> None:
    """Write a folder; it is whole or absent. Raises CheckpointError when it is there or the disk is full."""
    with guarded(target, resumable), scratch(target, resumable=resumable) as place:
        building = place / "model"
        building.mkdir(exist_ok=True)
        done = fill(building, place, work, hear=hear)
        for name, data in work.closing(done).items():
            atomic_write(building / name, data)
        sync(building)
        building.rename(target)
        sync(target.parent)


def build_one(target: Path, work: Work, *, hear: Hear | None = None) -> None:
    """Write a single big file, and beside it the closing ones; for work of one file, under whatever name."""
    with guarded(target, True), scratch(target, resumable=True) as place:
        building = place / "model"
        building.mkdir(exist_ok=True)
        done = fill(building, place, work, hear=hear)
        (name,) = done
        for beside, data in work.closing(done).items():
            atomic_write(target.parent / beside, data)
        (building / name).rename(target)
        sync(target.parent)


@contextmanager
def guarded(target: Path, resumable: bool) -> Iterator[None]:
    """What the system refuses, as an error that says what is left."""
    try:
        yield
    except OSError as error:
        left = "What is finished stays; the same command goes on." if resumable else "Nothing of it was left."
        raise CheckpointError(f"{target} could not be written: {error}. {left}") from None


def fill(building: Path, place: Path, work: Work, *, hear: Hear | None = None) -> dict[str, dict[str, Any]]:
    """Write all big files that are not there yet. Gives {name: {"bytes", "sha256"}}."""
    journal = Journal.of(place, work.identity)
    for name, told in list(journal.files.items()):
        path = building / name
        if name not in work.files or not path.exists() or path.stat().st_size != told["bytes"]:
            del journal.files[name]
    for path in building.iterdir():
        if path.name not in journal.files and path.name not in {f".{name}" for name in journal.items}:
            path.unlink()
    _room(building, work, journal)
    done = sum(told["bytes"] for told in journal.files.values())
    for name, plan in work.files.items():
        if name not in journal.files:
            count = _Count(hear, done, work.num_bytes)
            digest = _write(building, name, work, journal, count)
            journal.files[name] = {"bytes": plan.num_bytes, "sha256": digest}
            journal.items.pop(name, None)
            journal.save()
            done += plan.num_bytes
    return {name: journal.files[name] for name in work.files}


def _room(building: Path, work: Work, journal: Journal) -> None:
    """Raises CheckpointError where the disk has not what is still to come."""
    needed = sum(plan.num_bytes for name, plan in work.files.items() if name not in journal.files)
    needed -= sum(path.stat().st_blocks * 512 for path in building.iterdir() if path.name not in journal.files)
    found = os.statvfs(building)
    free = found.f_bavail * found.f_frsize
    if needed > free:
        raise CheckpointError(
            f"{building.parent.parent} has {free:,} bytes free; {needed:,} more are needed. Make room, or "
            "name another disk"
        )


@dataclass(slots=True)
class _Count:
    hear: Hear | None
    done: int
    total: int

    def add(self, name: str, num_bytes: int) -> None:
        self.done += num_bytes
        if self.hear is not None:
            self.hear(name, self.done, self.total)


def _write(building: Path, name: str, work: Work, journal: Journal, count: _Count) -> str:
    """One big file; its sha256. Goes on behind the items that the journal names."""
    plan = work.files[name]
    path = building / f".{name}"
    ready = min(journal.items.get(name, 0), len(plan.items)) if path.exists() else 0
    with open(path, "r+b" if ready else "wb") as file:
        if hasattr(os, "posix_fallocate") and plan.num_bytes:
            os.posix_fallocate(file.fileno(), 0, plan.num_bytes)
        behind = len(plan.head) + sum(item.num_bytes + item.padding for item in plan.items[:ready])
        digest = _hash_of(file, behind, plan.head) if ready else hashlib.sha256(plan.head)
        if not ready:
            file.write(plan.head)
        count.add(name, behind)
        unsafe = 0
        for at, item in enumerate(plan.items[ready:], start=ready + 1):
            for chunk in _exactly(item, work.chunks(item.name)):
                file.write(chunk)
                digest.update(chunk)
            count.add(item.name, item.num_bytes + item.padding)
            unsafe += item.num_bytes
            if unsafe >= work.sync_bytes and at < len(plan.items):
                file.flush()
                os.fsync(file.fileno())
                journal.items = {name: at}
                journal.save()
                unsafe = 0
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o644)
    path.rename(building / name)
    sync(building)
    return digest.hexdigest()


def _exactly(item: Item, chunks: Iterable[memoryview]) -> Iterator[memoryview]:
    """The chunks and the zeros behind them; a source that gives another number of bytes is a bug of ours."""
    got = 0
    for chunk in chunks:
        got += len(chunk)
        yield chunk
    if got != item.num_bytes:
        raise AssertionError(f"{item.name} has {got} bytes, planned were {item.num_bytes}")
    if item.padding:
        yield memoryview(bytes(item.padding))


def _hash_of(file: BinaryIO, num_bytes: int, head: bytes) -> Any:
    """The hash of what an earlier try wrote. Raises CheckpointError where that is not what it noted."""
    if file.read(len(head)) != head:
        raise CheckpointError(f"{file.name} has another header; remove it, and the same command begins it anew")
    digest = hashlib.sha256(head)
    left = num_bytes - len(head)
    while left:
        data = file.read(min(HASH_BYTES, left))
        if not data:
            raise CheckpointError(f"{file.name} was cut off; remove it, and the same command begins it anew")
        digest.update(data)
        left -= len(data)
    return digest


def hash_file(path: Path, hear: Callable[[int], None] | None = None) -> str:
    """sha256 of a file, a piece at a time; `hear` is told the size of each piece."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(HASH_BYTES):
            digest.update(data)
            if hear is not None:
                hear(len(data))
    return digest.hexdigest()


def sums_of(files: Mapping[str, dict[str, Any]], small: Mapping[str, bytes]) -> bytes:
    """The text that `sha256sum --check` reads."""
    hashes = {name: told["sha256"] for name, told in files.items()} | {n: sha256(data) for n, data in small.items()}
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items())).encode()

"""Memory and process limits by control groups: version 1, and version 2.

Version 1 is tested on real kernels. Version 2 follows the kernel's cgroup-v2.rst and is UNVERIFIED on a real
kernel: no machine at hand binds its controllers there; its file operations are tested against a plain folder.
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PREFIX = "riallm-"  # of our groups' names, then the launcher's process id, then a number
_MOUNTS = Path("/proc/self/mountinfo")
_SELF = Path("/proc/self/cgroup")


@dataclass(frozen=True, slots=True)
class Group:
    """One group of ours: a folder per controller (version 1) or one folder (version 2)."""

    version: int
    memory: Path
    pids: Path

    def folders(self) -> set[Path]:
        """All folders that make up the group."""
        return {self.memory, self.pids}

    def join(self) -> None:
        """Move the calling process in; what it starts is in too."""
        for folder in self.folders():
            (folder / "cgroup.procs").write_text("0", encoding="ascii")

    def memory_kills(self) -> int:
        """How many processes the kernel ended for want of memory within the limit."""
        name = "memory.oom_control" if self.version == 1 else "memory.events"
        for line in (self.memory / name).read_text(encoding="ascii").splitlines():
            key, _, value = line.partition(" ")
            if key == "oom_kill":
                return int(value)
        return 0

    def members(self) -> list[int]:
        """Ids of the processes in the group."""
        text = (self.pids / "cgroup.procs").read_text(encoding="ascii")
        return [int(word) for word in text.split()]

    def remove(self) -> None:
        """Delete the group; waits up to a second for its last process to be gone."""
        for folder in self.folders():
            for attempt in range(100):
                try:
                    folder.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError as error:
                    if error.errno != errno.EBUSY or attempt == 99:
                        raise
                    time.sleep(0.01)


def create(name: str, *, memory_bytes: int, processes: int) -> Group | None:
    """A new group `name` below our own with these limits, or None where we may not make one."""
    for version, memory, pids in _places():
        group = Group(version, memory / name, pids / name)
        try:
            for folder in group.folders():
                _forget_dead(folder.parent)
                folder.mkdir()
            _limit(group, memory_bytes, processes)
        except OSError:
            for folder in group.folders():
                with contextlib.suppress(OSError):
                    folder.rmdir()
            continue
        return group
    return None


def _forget_dead(place: Path) -> None:
    """Delete groups whose launcher was killed before it could; a group with processes cannot be deleted."""
    for folder in place.glob(f"{PREFIX}*-*"):
        owner = folder.name[len(PREFIX) :].partition("-")[0]
        if owner.isdigit() and not Path("/proc", owner).exists():
            with contextlib.suppress(OSError):
                folder.rmdir()


def _limit(group: Group, memory_bytes: int, processes: int) -> None:
    if group.version == 1:
        _put(group.memory / "memory.limit_in_bytes", memory_bytes)
        swap = group.memory / "memory.memsw.limit_in_bytes"
    else:
        _put(group.memory / "memory.max", memory_bytes)
        swap = group.memory / "memory.swap.max"
    if swap.exists():
        _put(swap, memory_bytes if group.version == 1 else 0)
    _put(group.pids / "pids.max", processes)


def _put(path: Path, number: int) -> None:
    path.write_text(str(number), encoding="ascii")


def _places() -> Iterator[tuple[int, Path, Path]]:
    """Where a group could be made: (version, folder for memory, folder for pids)."""
    own = _own_paths()
    first, second = _mounts()
    if "memory" in first and "pids" in first:
        yield 1, _under(first["memory"], own.get("memory", "/")), _under(first["pids"], own.get("pids", "/"))
    if second is not None:
        # a group with processes of its own may not hand out controllers, so the nearest one that does is taken
        at = _under(second, own.get("", "/"))
        while True:
            control = at / "cgroup.subtree_control"
            handed = control.read_text(encoding="ascii").split() if control.exists() else []
            if {"memory", "pids"} <= set(handed):
                yield 2, at, at
            if at == second or second not in at.parents:
                return
            at = at.parent


def _under(mount: Path, path: str) -> Path:
    found = mount / path.lstrip("/")
    return found if found.is_dir() else mount


def _own_paths() -> dict[str, str]:
    paths: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in _SELF.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            for controller in controllers.split(","):
                paths[controller] = path
    return paths


def _mounts() -> tuple[dict[str, Path], Path | None]:
    first: dict[str, Path] = {}
    second: Path | None = None
    with contextlib.suppress(OSError):
        for line in _MOUNTS.read_text(encoding="utf-8").splitlines():
            left, _, right = line.partition(" - ")
            where = Path(left.split()[4])
            kind, _, options = right.split(" ", 2)
            if kind == "cgroup":
                for option in options.split()[-1].split(","):
                    first[option] = where
            elif kind == "cgroup2":
                second = where
    return first, second

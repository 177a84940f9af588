"""Looking on from outside while a command runs: memory where no control group counts it, and full disks."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict


def descendants(root: int) -> list[int]:
    """Ids of all processes below `root`."""
    found: list[int] = []
    queue = [root]
    try:
        while queue:
            children = _children(queue.pop())
            found += children
            queue += children
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        return _descendants_by_scan(root)
    return found


def _children(process: int) -> list[int]:
    try:
        threads = os.listdir(f"/proc/{process}/task")
    except (FileNotFoundError, ProcessLookupError):  # it is gone
        return []
    found: list[int] = []
    for thread in threads:
        try:
            with open(f"/proc/{process}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
        except (FileNotFoundError, ProcessLookupError):
            if os.path.exists(f"/proc/{process}/task/{thread}/stat"):
                raise
    return found


def _descendants_by_scan(root: int) -> list[int]:
    children: dict[int, list[int]] = defaultdict(list)
    for name in os.listdir("/proc"):
        if name.isdigit():
            parent = _parent(name)
            if parent is not None:
                children[parent].append(int(name))
    found, queue = [], [root]
    while queue:
        for child in children.get(queue.pop(), ()):
            found.append(child)
            queue.append(child)
    return found


def memory_used(processes: list[int]) -> int:
    """Bytes of memory of these processes together that are not files: pages shared by fork count in each."""
    return sum(_sum_of(f"/proc/{process}/status", (b"RssAnon:", b"RssShmem:")) for process in processes)


def memory_shared_out(processes: list[int]) -> int:
    """The same with shared pages divided among their users (slower); what may not be read counts in full."""
    total = 0
    for process in processes:
        try:
            total += _sum_of(f"/proc/{process}/smaps_rollup", (b"Pss_Anon:", b"Pss_Shmem:"), strict=True)
        except OSError:
            total += memory_used([process])
    return total


def _sum_of(path: str, names: tuple[bytes, ...], *, strict: bool = False) -> int:
    """Bytes of the named lines of a file of /proc, which tells kilobytes; 0 for a process that is gone."""
    try:
        with open(path, "rb") as file:
            return sum(int(line.split()[1]) << 10 for line in file if line.startswith(names))
    except OSError:
        if strict:
            raise
        return 0


def disk_used(folder: str) -> int:
    """Bytes on disk of everything below `folder`, as far as it can be seen."""
    total = 0
    queue = [folder]
    while queue:
        try:
            entries = list(os.scandir(queue.pop()))
        except OSError:
            continue
        for entry in entries:
            with contextlib.suppress(OSError):
                total += entry.stat(follow_symlinks=False).st_blocks * 512
                if entry.is_dir(follow_symlinks=False):
                    queue.append(entry.path)
    return total


def is_full(mounts: tuple[bytes, ...]) -> bool:
    """Whether one of these mounts has no room left for data or for another file."""
    for path in mounts:
        with contextlib.suppress(OSError):
            state = os.statvfs(path)
            if state.f_blocks and (state.f_bfree * state.f_bsize < 65536 or state.f_ffree < 2):
                return True
    return False


def _parent(name: str) -> int | None:
    try:
        with open(f"/proc/{name}/stat", "rb") as file:
            text = file.read()
        return int(text[text.rindex(b")") + 2 :].split()[1])
    except (OSError, ValueError, IndexError):
        return None


def threads_of(uid: int) -> int:
    """How many threads the processes of a user have, all together."""
    total = 0
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == uid:
                total += len(os.listdir(f"/proc/{name}/task"))
    return total

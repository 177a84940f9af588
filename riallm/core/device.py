"""What this machine gives to this process: cores and memory, with the limits of its control group counted in.

Only Linux is read in full; elsewhere a figure that cannot be had is None. Nothing here knows of accelerators.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes of main memory; None where the system does not say.

    total_bytes: what the machine has, or the control group allows, whichever is less.
    available_bytes: what could be used now without swapping (the kernel's own estimate), within `total_bytes`.
    """

    total_bytes: int | None
    available_bytes: int | None


def num_cores(*, proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """Cores that this process may keep busy: its affinity, cut by the CPU quota of its control groups; at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shares = [allowed]
    for folder in _own_groups("cpu", proc, cgroups):
        quota, period = _cpu_quota(folder)
        if quota is not None and quota > 0 and period > 0:
            shares.append(max(1, quota // period))
    return min(shares)


def memory(*, proc: Path = PROC, cgroups: Path = CGROUPS) -> Memory:
    """Memory of the machine, cut by the limits of the control groups that this process lives in."""
    table = _meminfo(proc / "meminfo")
    total, available = table.get("MemTotal"), table.get("MemAvailable")
    for folder in _own_groups("memory", proc, cgroups):
        limit = _number(folder / "memory.max") or _number(folder / "memory.limit_in_bytes")
        used = _number(folder / "memory.current") or _number(folder / "memory.usage_in_bytes") or 0
        # Version 1 writes "no limit" as a number far beyond any machine, so a limit counts only below the total.
        if limit is None or (total is not None and limit >= total):
            continue
        total = limit
        left = max(0, limit - used)
        available = left if available is None else min(available, left)
    return Memory(total_bytes=total, available_bytes=available)


def _own_groups(controller: str, proc: Path, cgroups: Path) -> list[Path]:
    """Folders of this process's control groups for `controller`, from the innermost up to the mount."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return []
    folders: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root = cgroups
        elif controller in controllers.split(","):
            root = cgroups / controller
        else:
            continue
        inner = root / path.lstrip("/")
        # In a container the path is the host's and may not be there; its mount is then the group itself.
        while inner != root:
            folders.append(inner)
            inner = inner.parent
        folders.append(root)
    return [folder for folder in folders if folder.is_dir()]


def _cpu_quota(folder: Path) -> tuple[int | None, int]:
    """(microseconds of CPU, in each period of so many microseconds); None for no quota."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return (None if quota == "max" else int(quota)), int(period)
    except (OSError, ValueError):
        return _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us") or 0


def _number(path: Path) -> int | None:
    """The integer that `path` holds; None when it is absent, unreadable or holds a word such as `max`."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _meminfo(path: Path) -> dict[str, int]:
    """Table of /proc/meminfo in bytes; empty where there is none."""
    try:
        rows = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows if len(row) == 3 and row[2] == "kB"}

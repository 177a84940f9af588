"""Cores and memory, on made-up /proc and control-group trees of both versions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from riallm.core.device import memory, num_cores

GIB = 1 << 30


def machine(root: Path, *, groups: str, files: dict[str, str]) -> dict[str, Path]:
    """A tree with 8 GiB of memory, 6 GiB of it free, and these control-group files."""
    proc, cgroups = root / "proc", root / "cgroup"
    (proc / "self").mkdir(parents=True)
    cgroups.mkdir()
    (proc / "meminfo").write_text(f"MemTotal: {8 * GIB // 1024} kB\nMemAvailable: {6 * GIB // 1024} kB\nHugePages: 0\n")
    (proc / "self" / "cgroup").write_text(groups)
    for name, text in files.items():
        (cgroups / name).parent.mkdir(parents=True, exist_ok=True)
        (cgroups / name).write_text(text)
    return {"proc": proc, "cgroups": cgroups}


def test_without_limits_the_machine_is_what_counts(tmp_path: Path) -> None:
    here = machine(tmp_path, groups="0::/user\n", files={"user/memory.max": "max\n", "user/cpu.max": "max 100000\n"})
    assert (memory(**here).total_bytes, memory(**here).available_bytes) == (8 * GIB, 6 * GIB)
    assert num_cores(**here) == len(os.sched_getaffinity(0))


def test_the_tightest_group_of_version_2_wins(tmp_path: Path) -> None:
    files = {
        "a/memory.max": str(2 * GIB),
        "a/memory.current": str(GIB // 2),
        "a/b/memory.max": str(4 * GIB),
        "a/b/memory.current": "0",
        "a/cpu.max": "100000 100000\n",
    }
    here = machine(tmp_path, groups="0::/a/b\n", files=files)
    assert memory(**here).total_bytes == 2 * GIB
    assert memory(**here).available_bytes == 3 * GIB // 2
    assert num_cores(**here) == 1


def test_version_1_and_its_number_for_no_limit(tmp_path: Path) -> None:
    groups = "4:memory:/job\n2:cpu,cpuacct:/job\n"
    endless = {"memory/memory.limit_in_bytes": "9223372036854771712", "cpu/cpu.cfs_quota_us": "-1"}
    here = machine(tmp_path / "endless", groups=groups, files=endless)
    assert memory(**here).total_bytes == 8 * GIB
    assert num_cores(**here) == len(os.sched_getaffinity(0))
    capped = {
        "memory/job/memory.limit_in_bytes": str(GIB),
        "memory/job/memory.usage_in_bytes": str(GIB // 4),
        "cpu/job/cpu.cfs_quota_us": "50000",
        "cpu/job/cpu.cfs_period_us": "100000",
    }
    here = machine(tmp_path / "capped", groups=groups, files=capped)
    assert (memory(**here).total_bytes, memory(**here).available_bytes) == (GIB, 3 * GIB // 4)
    assert num_cores(**here) == 1


def test_a_group_that_the_container_hides_is_read_at_the_mount(tmp_path: Path) -> None:
    here = machine(tmp_path, groups="0::/not/shown/here\n", files={"memory.max": str(GIB)})
    assert memory(**here).total_bytes == GIB


@pytest.mark.parametrize("missing", ["proc", "cgroup"])
def test_what_the_system_does_not_say_is_none_or_uncut(tmp_path: Path, missing: str) -> None:
    here = machine(tmp_path, groups="0::/\n", files={})
    gone = tmp_path / "gone"
    if missing == "proc":
        assert memory(proc=gone, cgroups=here["cgroups"]).total_bytes is None
    else:
        assert memory(proc=here["proc"], cgroups=gone).total_bytes == 8 * GIB
    assert num_cores(proc=gone, cgroups=gone) >= 1

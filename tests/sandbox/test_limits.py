"""Limits: what ran into one says which, and we stay small whatever it does."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest
from sandboxing import PYTHON, Opener

from riallm.sandbox import cgroup
from riallm.sandbox.base import MEGABYTE, Limits, Stop, Tier

SMALL = {"memory_bytes": 200 * MEGABYTE, "disk_bytes": 20 * MEGABYTE, "processes": 40}
FILL = "i=0; while [ $i -lt 40 ]; do head -c 1000000 /dev/zero > {0}/f$i || exit 9; i=$((i+1)); done; sleep 1"


@pytest.mark.parametrize("command", ["sleep 60", "while :; do :; done", "trap '' TERM HUP INT; sleep 60"])
def test_time(opened: Opener, tier: Tier, command: str) -> None:
    done = opened(tier).exec(["sh", "-c", f"echo begun; {command}"], limits=Limits(seconds=0.4))
    assert (done.stopped, done.returncode, done.stdout) == (Stop.TIME, -9, "begun\n")


def test_time_is_told_also_when_pipes_are_held(opened: Opener, tier: Tier) -> None:
    script = "(trap '' TERM; setsid sleep 60) & sleep 60"
    assert opened(tier).exec(["sh", "-c", script], limits=Limits(seconds=0.4)).stopped is Stop.TIME


def test_memory_of_one(opened: Opener, tier: Tier) -> None:
    program = "import time; held = bytearray(b'x' * (400 << 20)); time.sleep(5); print('had it')"
    done = opened(tier).exec([str(PYTHON), "-c", program], limits=Limits(**SMALL))
    assert (done.stopped, done.stdout) == (Stop.MEMORY, "")
    assert done.returncode != 0


def test_memory_of_all_together(opened: Opener, tier: Tier) -> None:
    program = (
        "import os, time\nfor _ in range(5):\n    if os.fork() == 0:\n"
        "        held = bytearray(b'x' * (70 << 20)); time.sleep(2); os._exit(0)\n"
        "codes = [os.wait()[1] for _ in range(5)]\nraise SystemExit(any(codes))"
    )
    done = opened(tier).exec([str(PYTHON), "-c", program], limits=Limits(**SMALL))
    assert done.stopped is Stop.MEMORY


def test_memory_of_nobody(opened: Opener, tier: Tier) -> None:
    program = (
        "import os, time\nfor n in range(30):\n    fd = os.memfd_create(str(n))\n"
        "    for _ in range(15): os.write(fd, bytes(1 << 20))\ntime.sleep(2); print('had it')"
    )
    done = opened(tier).exec([str(PYTHON), "-c", program], limits=Limits(**SMALL))
    refused = "OSError" in done.stderr  # where nothing counts such memory
    assert (done.stopped is Stop.MEMORY or refused, done.stdout) == (True, "")


def test_a_caught_want_of_memory_is_no_stop(opened: Opener, tier: Tier) -> None:
    program = "import os, sys\npid = os.fork()\nif pid == 0:\n    os._exit(1)\nos.wait()\nprint('fine')"
    done = opened(tier).exec([str(PYTHON), "-c", program], limits=Limits(**SMALL))
    assert (done.stopped, done.stdout) == (None, "fine\n")


@pytest.mark.parametrize("folder", [".", "/tmp", "/dev/shm", "/var/tmp"])
def test_disk(opened: Opener, mounting: Tier, folder: str) -> None:
    done = opened(mounting).exec(["sh", "-c", FILL.format(folder)], limits=Limits(**SMALL))
    assert (done.stopped, done.returncode) == (Stop.DISK, 9)
    assert "No space left on device" in done.stderr


def test_disk_without_mounts(opened: Opener) -> None:
    done = opened(Tier.LANDLOCK).exec(["sh", "-c", FILL.format(".")], limits=Limits(**SMALL))
    assert done.stopped is Stop.DISK


def test_one_huge_file(opened: Opener, tier: Tier) -> None:
    done = opened(tier).exec(["sh", "-c", "exec head -c 60000000 /dev/zero > big"], limits=Limits(**SMALL))
    assert done.stopped is Stop.DISK
    assert done.returncode != 0


def test_files_without_end(opened: Opener, mounting: Tier) -> None:
    program = "for n in range(9000): open(f'f{n}', 'w').close()"
    done = opened(mounting).exec([str(PYTHON), "-c", program], limits=Limits(**SMALL))
    assert done.stopped is Stop.DISK
    assert "No space left on device" in done.stderr


def test_processes(opened: Opener, tier: Tier) -> None:
    program = (
        "import os, time\nn = 0\ntry:\n    for _ in range(90):\n        if os.fork() == 0: time.sleep(9)\n"
        "        n += 1\nexcept BlockingIOError: print('refused', n < 45)"
    )
    done = opened(tier).exec([str(PYTHON), "-c", program], limits=Limits(**SMALL))
    assert done.stdout == "refused True\n"


def test_a_gigabyte_of_output_is_not_held(opened: Opener, tier: Tier) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = opened(tier).exec(["head", "-c", "1000000000", "/dev/zero"], limits=Limits(output_bytes=10_000))
    assert done.stopped is Stop.OUTPUT
    assert len(done.stdout) < 11_000
    assert "bytes left out" in done.stdout
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # kilobytes


def test_head_and_tail_of_much_output(opened: Opener, tier: Tier) -> None:
    done = opened(tier).exec(["seq", "100000"], limits=Limits(output_bytes=100))
    assert done.stopped is None
    assert done.stdout.startswith("1\n2\n3\n")
    assert done.stdout.endswith("99999\n100000\n")
    assert "[... 588795 bytes left out ...]" in done.stdout


def test_the_network_is_not_there(opened: Opener, tier: Tier) -> None:
    program = (
        "import socket\ntry: socket.create_connection(('192.0.2.1', 80), 3)\n"
        "except OSError as e: print('no:', e.errno)\n"
        "try: socket.getaddrinfo('example.org', 80)\nexcept OSError: print('no name')"
    )
    done = opened(tier).exec([str(PYTHON), "-c", program])
    assert done.stdout.startswith("no: ")
    assert done.stdout.endswith("no name\n")


def test_loopback_inside_works(opened: Opener, mounting: Tier) -> None:
    program = (
        "import socket\ns = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(s.getsockname())\n"
        "s.accept()[0].send(b'hello'); print(c.recv(9).decode())"
    )
    assert opened(mounting).exec([str(PYTHON), "-c", program]).stdout == "hello\n"


def test_a_first_group_counts_and_goes() -> None:
    made = cgroup.create(f"riallm-test-{os.getpid()}", memory_bytes=50 * MEGABYTE, processes=7)
    if made is None:
        pytest.skip("no control group may be made here (needs root)")
    assert (made.memory / "memory.limit_in_bytes").read_text().strip() == str(50 * MEGABYTE)
    assert (made.pids / "pids.max").read_text().strip() == "7"
    assert (made.memory_kills(), made.members()) == (0, [])
    made.remove()
    assert not made.memory.exists()
    assert not made.pids.exists()


def test_groups_of_dead_launchers_are_forgotten() -> None:
    dead = cgroup.create(f"{cgroup.PREFIX}999999999-1", memory_bytes=MEGABYTE, processes=1)
    if dead is None:
        pytest.skip("no control group may be made here (needs root)")
    made = cgroup.create(f"{cgroup.PREFIX}{os.getpid()}-2", memory_bytes=MEGABYTE, processes=1)
    assert made is not None
    assert not dead.memory.exists()
    made.remove()


def test_the_second_version_follows_its_manual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount = tmp_path / "cgroup"
    (mount / "user.slice" / "mine").mkdir(parents=True)
    (mount / "cgroup.subtree_control").write_text("cpu memory pids\n")
    (mount / "user.slice" / "cgroup.subtree_control").write_text("memory pids\n")
    (mount / "user.slice" / "mine" / "cgroup.subtree_control").write_text("\n")
    (tmp_path / "mounts").write_text(f"29 23 0:26 / {mount} rw - cgroup2 cgroup2 rw\n")
    (tmp_path / "self").write_text("0::/user.slice/mine\n")
    monkeypatch.setattr(cgroup, "_MOUNTS", tmp_path / "mounts")
    monkeypatch.setattr(cgroup, "_SELF", tmp_path / "self")
    made = cgroup.create("riallm-x", memory_bytes=100, processes=5)
    assert made is not None
    assert made.memory == made.pids == mount / "user.slice" / "riallm-x"
    assert (made.memory / "memory.max").read_text() == "100"
    assert (made.memory / "pids.max").read_text() == "5"
    (made.memory / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    (made.memory / "cgroup.procs").write_text("11\n12\n")
    assert (made.version, made.memory_kills(), made.members()) == (2, 2, [11, 12])


def test_no_group_where_none_is_handed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mounts").write_text(f"29 23 0:26 / {tmp_path} rw - cgroup2 cgroup2 rw\n")
    (tmp_path / "self").write_text("0::/\n")
    monkeypatch.setattr(cgroup, "_MOUNTS", tmp_path / "mounts")
    monkeypatch.setattr(cgroup, "_SELF", tmp_path / "self")
    assert cgroup.create("riallm-x", memory_bytes=1, processes=1) is None

"""A worker process ends with its parent, even when that one is killed, and leaves Ctrl-C to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PARENT = """
import multiprocessing, os, sys, time
from riallm.core.workers import worker_begins

def worker(ready):
    if sys.argv[1] == "tied":
        worker_begins()
    ready.send(os.getpid())
    time.sleep(60)

here, there = multiprocessing.Pipe()
multiprocessing.get_context("fork").Process(target=worker, args=(there,)).start()
print(here.recv(), flush=True)
time.sleep(60)
"""


def _alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="a parent's death is only told on Linux")
@pytest.mark.parametrize("how", ["tied", "free"])
def test_a_worker_ends_with_its_killed_parent(how: str) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, how], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        try:
            os.kill(pid, signal.SIGINT) if how == "tied" else None
            time.sleep(0.2)
            assert _alive(pid)
            parent.kill()
            parent.wait()
            deadline = time.monotonic() + 20
            while how == "tied" and _alive(pid) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert _alive(pid) == (how == "free")
        finally:
            if _alive(pid):
                os.kill(pid, signal.SIGKILL)

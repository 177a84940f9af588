"""A lock keeps a second process out, names the first, and is free when that one is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from riallm.core.errors import ProjectError, UsageError
from riallm.core.locks import only_one

HOLDER = """
import sys, time
from pathlib import Path
from riallm.core.locks import only_one
with only_one(Path(sys.argv[1]), "busy"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_lock_is_held_by_one_and_free_after_a_kill(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
            with pytest.raises(UsageError, match=f"^busy with {holder.pid}$"), only_one(lock, "busy with {holder}"):
                pass
        finally:
            os.kill(holder.pid, signal.SIGKILL)
        holder.wait(timeout=60)
        with only_one(lock, "busy with {holder}"):
            with (
                pytest.raises(ProjectError, match=f"^busy with {os.getpid()}$"),
                only_one(lock, "busy with {holder}", error=ProjectError),
            ):
                pass
            assert lock.read_text() == str(os.getpid())

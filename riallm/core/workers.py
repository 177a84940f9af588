"""How a worker process begins: Ctrl-C is its parent's business, and it does not outlive its parent."""

from __future__ import annotations

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1  # prctl.h


def worker_begins() -> None:
    """For the first line of a worker process. When the parent is killed, the worker ends too (on Linux)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

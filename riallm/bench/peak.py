"""The peak of a process's memory, from a moment on: the processor's (Linux), or what PyTorch has of a GPU's."""

from __future__ import annotations

import ctypes

from riallm.core.device import PROC
from riallm.core.errors import UsageError

M_MMAP_THRESHOLD = -3
"""As `mallopt` of glibc calls it (malloc.h)."""


def free_at_once() -> None:
    """From now on this process's C library maps each block of 128 KiB and more on its own, and gives it back when it is
    freed. By itself glibc comes to keep what was freed for the next, and which one happens to fit moves a peak by more
    than a percent."""
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):  # glibc's alone
        libc.mallopt(M_MMAP_THRESHOLD, 128 << 10)


def peak_from_now(device: str = "cpu") -> int:
    """Begin to watch for the peak, and the KiB that there are now: an import may have taken more before. What the C
    library holds of freed memory is given back first, else a process that is older has a higher peak."""
    if device != "cpu":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device) // 1024
    check_peak()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    (PROC / "self/clear_refs").write_text("5")
    return kibibytes("VmRSS")


def peak(device: str = "cpu") -> int:
    """KiB at the peak since `peak_from_now`."""
    if device != "cpu":
        import torch

        return torch.cuda.max_memory_allocated(device) // 1024
    return kibibytes("VmHWM")


def check_peak() -> None:
    """Raises UsageError where the system does not tell."""
    if not PROC.exists():
        raise UsageError(f"the peak of memory is read from {PROC}, which this system does not have")


def kibibytes(name: str) -> int:
    """Of this process now, as /proc/self/status calls it, such as VmRSS."""
    lines = (PROC / "self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))

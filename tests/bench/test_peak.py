"""The peak of this process's memory."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from riallm.bench.peak import free_at_once, kibibytes, peak, peak_from_now


def test_what_was_freed_is_no_part_of_it() -> None:
    """Blocks of a kind that the C library keeps, with one behind them that is not freed."""
    before = peak_from_now()
    blocks = [bytes(2000) for _ in range(20_000)]
    last = blocks[-1]
    highest = peak()
    blocks.clear()
    assert highest - before > 30_000 and len(last) == 2000
    assert peak_from_now() - before < 10_000
    assert peak() - before < 10_000


def kept() -> int:
    """KiB that are still there of 40 MB of tensors that were freed, with one behind them that is not."""
    torch.zeros(7_000_000)  # freed, from where on glibc keeps blocks of this size
    before = peak_from_now()
    tensors = [torch.zeros(250_000) for _ in range(41)]
    last = tensors[-1]
    tensors.clear()
    later = kibibytes("VmRSS")
    assert peak() - before > 35_000 and len(last) == 250_000
    return later - before


def test_a_tensor_s_memory_is_given_back_when_it_is_freed() -> None:
    with ProcessPoolExecutor(1, get_context("spawn")) as own:
        assert own.submit(kept).result() > 30_000
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=free_at_once) as own:
        assert own.submit(kept).result() < 10_000

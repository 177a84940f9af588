"""The peak of this process's memory."""

from __future__ import annotations

from riallm.bench.peak import peak, peak_from_now


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

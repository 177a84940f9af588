"""Drafts without a model: what followed the last few tokens where they stood before (Saxena 2023, prompt lookup)."""

from __future__ import annotations

from collections.abc import Sequence

LONGEST, SHORTEST = 5, 2
"""Tokens that must have stood there before; longer matches are tried first."""


def lookup(ids: Sequence[int], num: int) -> list[int]:
    """Up to `num` tokens that followed the latest earlier place of the longest end of `ids` that was there before."""
    for size in range(LONGEST, SHORTEST - 1, -1):
        if len(ids) <= size:
            continue
        end = list(ids[-size:])
        for at in range(len(ids) - size - 1, -1, -1):
            if ids[at] == end[0] and list(ids[at : at + size]) == end:
                return list(ids[at + size : at + size + num])
    return []

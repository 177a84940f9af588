"""The coverage spectrum: which lines each test executes, and how much that makes each line a suspect.

Lines of a file are kept as a bit set (bit n: line n), so that thousands of tests over large files stay small.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

Lines = Mapping[str, int]
"""path -> bit set of executed lines"""


def bits(mask: int) -> Iterator[int]:
    """Positions of the set bits, ascending."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def line_range(first: int, last: int) -> int:
    """Bit set of the lines `first` to `last`, both included."""
    return ((1 << (last - first + 1)) - 1) << first


def ochiai(
    failing: Iterable[Lines], passing: Iterable[Lines], allowed: set[str] | None = None
) -> dict[tuple[str, int], float]:
    """(path, line) -> failed(line) / sqrt(failed * executed(line)) for each line that a failing test executes.

    Abreu, Zoeteweij, van Gemund: On the accuracy of spectrum-based fault localization (2007). `allowed`: the only
    files that count. Scores lie in (0, 1]; 1 is a line of all failing tests and of no passing one.
    """
    failed, passed, num_failing = Counter[tuple[str, int]](), Counter[tuple[str, int]](), 0
    for lines in failing:
        num_failing += 1
        failed.update(_executed(lines, allowed))
    for lines in passing:
        passed.update(line for line in _executed(lines, allowed) if line in failed)
    return {line: count / math.sqrt(num_failing * (count + passed[line])) for line, count in failed.items()}


def _executed(lines: Lines, allowed: set[str] | None) -> Iterator[tuple[str, int]]:
    for path, mask in lines.items():
        if allowed is None or path in allowed:
            for line in bits(mask):
                yield path, line

"""Ochiai against hand-computed values, and bit sets against plain sets."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from riallm.code.spectrum import bits, line_range, ochiai


@given(st.sets(st.integers(0, 3000)))
def test_bits_are_the_set(lines: set[int]) -> None:
    assert list(bits(sum(1 << line for line in lines))) == sorted(lines)


def test_line_range() -> None:
    assert list(bits(line_range(3, 5))) == [3, 4, 5]


def test_ochiai_by_hand() -> None:
    failing = [{"a.py": 0b1110}, {"a.py": 0b0110}]
    passing = [{"a.py": 0b0100}, {"a.py": 0b0010, "b.py": 0b10}]
    scores = ochiai(failing, passing)
    assert scores == {
        ("a.py", 1): 2 / math.sqrt(2 * 3),
        ("a.py", 2): 2 / math.sqrt(2 * 3),
        ("a.py", 3): 1 / math.sqrt(2 * 1),
    }
    assert ochiai([{"a.py": 2, "t.py": 2}], [], {"a.py"}) == {("a.py", 1): 1.0}

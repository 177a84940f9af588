"""Behaviour of fractions."""

import importlib
from decimal import Decimal

import pytest

fractions = importlib.import_module("library.fractions")
F = fractions.Fraction


def test_made_in_lowest_terms() -> None:
    assert (F(6, 8).numerator, F(6, 8).denominator) == (3, 4)
    assert (F(3, -6).numerator, F(3, -6).denominator) == (-1, 2)
    assert F("3/4") == F(3, 4)
    assert F("-1.25") == F(-5, 4)
    assert F("1e-2") == F(1, 100)
    assert F(0.5) == F(1, 2)
    assert F(Decimal("0.1")) == F(1, 10)


def test_refused() -> None:
    with pytest.raises(ZeroDivisionError):
        F(1, 0)
    with pytest.raises(ValueError, match="Invalid literal"):
        F("one")


def test_arithmetic() -> None:
    assert F(1, 2) + F(1, 3) == F(5, 6)
    assert F(1, 2) - F(1, 3) == F(1, 6)
    assert F(2, 3) * F(3, 4) == F(1, 2)
    assert F(1, 2) / F(-1, 4) == -2
    assert F(7, 2) // 1 == 3
    assert F(-7, 2) % 2 == F(1, 2)
    assert F(2, 3) ** -2 == F(9, 4)
    assert 1 + F(1, 2) == F(3, 2)


def test_order() -> None:
    assert F(1, 3) < F(1, 2) <= F(2, 4)
    assert F(3, 2) > 1.25
    assert not F(1, 2) >= F(2, 3)

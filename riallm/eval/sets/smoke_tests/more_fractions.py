"""More behaviour of fractions."""

import importlib
import math

fractions = importlib.import_module("library.fractions")
F = fractions.Fraction


def test_nearest_with_a_small_denominator() -> None:
    assert F("3.1415926535897932").limit_denominator(1000) == F(355, 113)
    assert F(-22, 7).limit_denominator(3) == -3
    assert F(1, 3).limit_denominator(3) == F(1, 3)
    assert F(201, 200).limit_denominator(100) == F(1)


def test_rounding() -> None:
    assert [round(F(n, 2)) for n in (1, 3, 5, -1, -3)] == [0, 2, 2, 0, -2]
    assert round(F(22, 7), 2) == F(157, 50)
    assert round(F(1250), -2) == 1200
    assert math.floor(F(-1, 2)) == -1
    assert math.ceil(F(-1, 2)) == 0
    assert math.trunc(F(-3, 2)) == -1


def test_hash_and_text() -> None:
    assert hash(F(1, 2)) == hash(0.5)
    assert hash(F(-3)) == hash(-3)
    assert str(F(3, 1)) == "3"
    assert str(F(-3, 2)) == "-3/2"
    assert repr(F(1, 2)) == "Fraction(1, 2)"
    assert bool(F(0)) is False


def test_signs_and_powers() -> None:
    assert abs(F(-1, 2)) == F(1, 2)
    assert -F(1, 2) == F(-1, 2)
    assert F(-1, 2) ** -3 == -8
    assert F(4) ** F(1, 2) == 2.0
    assert divmod(F(7, 2), F(3, 2)) == (2, F(1, 2))
    assert F(1, 2).as_integer_ratio() == (1, 2)
    assert F(5, 3) - 2 == F(-1, 3)
    assert 2 - F(5, 3) == F(1, 3)
    assert F(5, 6) + F(1, 6) == 1

"""More behaviour of colorsys: there and back for a grid of colours."""

import importlib
import itertools

import pytest

colorsys = importlib.import_module("library.colorsys")
STEPS = [0.0, 0.2, 0.5, 0.8, 1.0]
GRID = list(itertools.product(STEPS, repeat=3))


@pytest.mark.parametrize("space", ["hsv", "hls"])
def test_there_and_back(space: str) -> None:
    for colour in GRID:
        there = getattr(colorsys, f"rgb_to_{space}")(*colour)
        assert getattr(colorsys, f"{space}_to_rgb")(*there) == pytest.approx(colour)
        assert all(0 <= part <= 1 for part in there)


def test_yiq() -> None:
    assert colorsys.rgb_to_yiq(1, 0, 0) == pytest.approx((0.30, 0.599, 0.213), abs=0.01)
    assert colorsys.rgb_to_yiq(0, 0, 1) == pytest.approx((0.11, -0.3217, 0.3121), abs=0.01)
    assert colorsys.yiq_to_rgb(2, 0, 0) == (1.0, 1.0, 1.0)
    assert colorsys.yiq_to_rgb(-1, 0, 0) == (0.0, 0.0, 0.0)

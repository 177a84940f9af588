"""Behaviour of colorsys."""

import importlib

import pytest

colorsys = importlib.import_module("library.colorsys")


@pytest.mark.parametrize(
    ("rgb", "hsv"),
    [
        ((0.0, 0.0, 0.0), (0, 0, 0)),
        ((0.0, 0.0, 1.0), (4 / 6, 1, 1)),
        ((0.0, 1.0, 0.0), (2 / 6, 1, 1)),
        ((1.0, 0.0, 0.0), (0, 1, 1)),
        ((1.0, 1.0, 0.0), (1 / 6, 1, 1)),
        ((0.5, 0.5, 0.5), (0, 0, 0.5)),
    ],
)
def test_hsv(rgb: tuple[float, ...], hsv: tuple[float, ...]) -> None:
    assert colorsys.rgb_to_hsv(*rgb) == pytest.approx(hsv)
    assert colorsys.hsv_to_rgb(*hsv) == pytest.approx(rgb)


@pytest.mark.parametrize(
    ("rgb", "hls"),
    [
        ((0.0, 0.0, 1.0), (4 / 6, 0.5, 1)),
        ((0.0, 1.0, 1.0), (3 / 6, 0.5, 1)),
        ((1.0, 0.5, 0.5), (0, 0.75, 1)),
        ((1.0, 1.0, 1.0), (0, 1, 0)),
        ((0.25, 0.25, 0.25), (0, 0.25, 0)),
    ],
)
def test_hls(rgb: tuple[float, ...], hls: tuple[float, ...]) -> None:
    assert colorsys.rgb_to_hls(*rgb) == pytest.approx(hls)
    assert colorsys.hls_to_rgb(*hls) == pytest.approx(rgb)


def test_yiq_of_grey() -> None:
    assert colorsys.rgb_to_yiq(0.5, 0.5, 0.5) == pytest.approx((0.5, 0, 0))
    assert colorsys.yiq_to_rgb(0.5, 0, 0) == pytest.approx((0.5, 0.5, 0.5))

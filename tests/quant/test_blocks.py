"""Blocks of few bits: what comes back is near, packing loses nothing more, and gradients pass."""

from __future__ import annotations

import pytest
import torch

from riallm.core.errors import UsageError
from riallm.quant.blocks import BLOCK, Bits, dequantise, quantise, rounded

WEIGHT = torch.randn(24, 4 * BLOCK, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("bits", [4, 8])
def test_what_comes_back_is_within_half_a_step(bits: Bits) -> None:
    codes, scales = quantise(WEIGHT, bits)
    steps = scales.float().abs().repeat_interleave(BLOCK, dim=1)
    wrong = (dequantise(codes, scales) - WEIGHT).abs()
    # Four bits have one code more below zero than above: a value as large as the largest, of the other sign, loses it.
    assert bool((wrong <= steps * (0.51 if bits == 8 else 1.01)).all())
    assert float((wrong / steps).mean()) < 0.3


@pytest.mark.parametrize("bits", [4, 8])
def test_quantising_again_changes_nothing(bits: Bits) -> None:
    once = dequantise(*quantise(WEIGHT, bits))
    torch.testing.assert_close(dequantise(*quantise(once, bits)), once, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("bits", [4, 8])
def test_rounding_in_training_is_what_ships(bits: Bits) -> None:
    weight = WEIGHT.clone().requires_grad_()
    near = rounded(weight, bits)
    torch.testing.assert_close(near.detach(), dequantise(*quantise(WEIGHT, bits)), atol=1e-6, rtol=0)
    (near * WEIGHT).sum().backward()
    torch.testing.assert_close(weight.grad, WEIGHT)


@pytest.mark.parametrize("bits", [4, 8])
def test_zeros_stay_zeros(bits: Bits) -> None:
    assert not dequantise(*quantise(torch.zeros(2, BLOCK), bits)).any()


def test_all_sixteen_codes_come_back() -> None:
    row = (torch.arange(BLOCK) % 16 - 8).float()[None]
    torch.testing.assert_close(dequantise(*quantise(row, 4)), row)


def test_rows_that_are_no_multiple_are_refused() -> None:
    with pytest.raises(UsageError, match=r"multiple of it, got a tensor of \(3, 33\)"):
        quantise(torch.zeros(3, 33), 8)

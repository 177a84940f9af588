"""Whole numbers of 4 or 8 bits in blocks along a row, each block with one scale of two bytes.

The layouts are those of GGUF's Q4_0 and Q8_0 in meaning (symmetric, blocks of 32), not in byte order. Letters: O rows,
I columns, N blocks of a row.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from riallm.core.errors import UsageError

Bits = Literal[4, 8]
BLOCK = 32


def _largest(bits: int) -> int:
    return (1 << (bits - 1)) - 1


def _blocks(weight: Tensor) -> Tensor:
    if weight.ndim != 2 or weight.shape[1] % BLOCK:
        raise UsageError(f"blocks of {BLOCK} need rows of a multiple of it, got a tensor of {tuple(weight.shape)}")
    return weight.float().reshape(weight.shape[0], -1, BLOCK)


def _scales(blocks: Tensor, bits: int) -> Tensor:
    """(O, N) float16: the largest of a block becomes the largest code, or one more on the negative side for 4 bits,
    which has 16 codes and would waste one."""
    if bits == 8:
        return (blocks.abs().amax(dim=-1) / 127).half()
    place = blocks.abs().argmax(dim=-1, keepdim=True)
    return (blocks.gather(-1, place).squeeze(-1) / -8).half()


def _codes(blocks: Tensor, scales: Tensor, bits: int) -> Tensor:
    """(O, N, BLOCK) of whole numbers, as floats; a scale of zero gives zeros."""
    inverse = torch.where(scales == 0, 0.0, 1.0 / scales.float())
    return (blocks * inverse[..., None]).round().clamp(-_largest(bits) - (bits == 4), _largest(bits))


def quantise(weight: Tensor, bits: Bits) -> tuple[Tensor, Tensor]:
    """(O, I) -> codes: (O, I) int8 for 8 bits, (O, I / 2) uint8 for 4, the even column in the low half; and scales:
    (O, N) float16. Raises UsageError for a row length that is no multiple of the block."""
    blocks = _blocks(weight)
    scales = _scales(blocks, bits)
    codes = _codes(blocks, scales, bits).reshape(weight.shape).to(torch.int8)
    if bits == 4:
        unsigned = (codes + 8).to(torch.uint8)
        codes = unsigned[:, 0::2] | (unsigned[:, 1::2] << 4)
    return codes, scales


def dequantise(codes: Tensor, scales: Tensor) -> Tensor:
    """(O, I) in float32; the codes' type tells their bits."""
    if codes.dtype == torch.uint8:
        codes = torch.stack((codes & 15, codes >> 4), dim=-1).flatten(1).to(torch.int8) - 8
    scaled = codes.float().reshape(codes.shape[0], -1, BLOCK) * scales.float()[..., None]
    return scaled.reshape(codes.shape)


def rounded(weight: Tensor, bits: Bits) -> Tensor:
    """What `dequantise` makes of quantised weights, in the weight's type; the gradient passes as if nothing was rounded
    (straight-through, Bengio et al. 2013), so that a model can be trained for its few bits."""
    with torch.no_grad():
        blocks = _blocks(weight)
        scales = _scales(blocks, bits)
        near = (_codes(blocks, scales, bits) * scales.float()[..., None]).reshape(weight.shape)
        difference = near.to(weight.dtype) - weight
    return weight + difference

"""GGUF's K-quants: super-blocks of 256 along a row, whose parts have scales of few bits under one or two of 16 bits.

    q4_k   144 bytes: scale and minimum (float16 each), 8 scales and 8 minima of 6 bits (12 bytes), 256 codes of 4 bits
    q6_k   210 bytes: low 4 bits of the codes (128), high 2 bits (64), 16 scales (int8), a scale (float16)

Read, never made. The layouts are llama.cpp's; tests hold them against its own Python package. Letters: O rows,
I columns, S super-blocks of all rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 256
BYTES: dict[str, int] = {"q4_k": 144, "q6_k": 210}
"""Bytes of a super-block."""


def dequantise(codes: Tensor, kind: str) -> Tensor:
    """(O, bytes) uint8 -> (O, I) in float32."""
    blocks = codes.reshape(-1, BYTES[kind])
    return (_q4_k if kind == "q4_k" else _q6_k)(blocks).reshape(codes.shape[0], -1)


def _halves(data: Tensor) -> Tensor:
    """(S, 2 n) bytes as (S, n) float16, widened."""
    return data.contiguous().view(torch.float16).float()


def q4_k_scales(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """(S, 144) -> scales and minima of the parts, (S, 8) uint8 each: below 64, and under a float16 each."""
    packed = blocks[:, 4:16]
    low, middle, high = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = torch.cat((low & 63, (high & 15) | ((low >> 6) << 4)), dim=1)
    minima = torch.cat((middle & 63, (high >> 4) | ((middle >> 6) << 4)), dim=1)
    return scales, minima


def q4_k_parts(blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(S, 144) -> scales (S, 8) and minima (S, 8) in float32, codes (S, 8, 32) in uint8: x = scale * code - minimum."""
    whole = _halves(blocks[:, :4])
    scales, minima = q4_k_scales(blocks)
    pairs = blocks[:, 16:].reshape(-1, 4, 1, 32)
    codes = torch.cat((pairs & 15, pairs >> 4), dim=2).reshape(-1, 8, 32)
    return whole[:, :1] * scales.float(), whole[:, 1:] * minima.float(), codes


def _q4_k(blocks: Tensor) -> Tensor:
    scales, minima, codes = q4_k_parts(blocks)
    return scales[..., None] * codes.float() - minima[..., None]


def q6_k_parts(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """(S, 210) -> scales (S, 16) in float32, codes (S, 16, 16) in int8: x = scale * code."""
    low = blocks[:, :128].reshape(-1, 2, 2, 32)
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32)
    lows = torch.stack((low[:, :, 0] & 15, low[:, :, 1] & 15, low[:, :, 0] >> 4, low[:, :, 1] >> 4), dim=2)
    highs = torch.cat(tuple((high >> shift) & 3 for shift in (0, 2, 4, 6)), dim=2)
    codes = (lows | (highs << 4)).to(torch.int8) - 32
    scales = blocks[:, 192:208].contiguous().view(torch.int8).float() * _halves(blocks[:, 208:])
    return scales, codes.reshape(-1, 16, 16)


def _q6_k(blocks: Tensor) -> Tensor:
    scales, codes = q6_k_parts(blocks)
    return scales[..., None] * codes.float()

"""NF4 (Dettmers et al. 2023): sixteen levels that a normal distribution fills equally, in blocks of 64 with one scale.

Letters: O rows, I columns, N blocks of a row.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 64

LEVELS = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
"""The levels of the paper's appendix E, as float32."""


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(O, I) -> codes (O, I / 2) uint8 with the even column in the low half, scales (O, N) float16: the largest of a
    block in absolute value."""
    blocks = weight.float().reshape(weight.shape[0], -1, BLOCK)
    scales = blocks.abs().amax(dim=-1).half()
    inverse = torch.where(scales == 0, 0.0, 1.0 / scales.float())
    levels = torch.tensor(LEVELS, device=weight.device)
    between = (levels[1:] + levels[:-1]) / 2
    codes = torch.bucketize(blocks * inverse[..., None], between).reshape(weight.shape).to(torch.uint8)
    return codes[:, 0::2] | (codes[:, 1::2] << 4), scales


def dequantise(codes: Tensor, scales: Tensor) -> Tensor:
    """(O, I) in float32."""
    levels = torch.tensor(LEVELS, device=codes.device)
    chosen = levels[torch.stack((codes & 15, codes >> 4), dim=-1).flatten(1).long()]
    return (chosen.reshape(codes.shape[0], -1, BLOCK) * scales.float()[..., None]).reshape(chosen.shape)

"""Rotary position embedding (Su et al. 2021), with NTK-aware and YaRN scaling for contexts beyond what theta carries.

Letters: B rows, T tokens, H heads, K head size. Pairs are (i, i + K/2), as Llama and Qwen checkpoints have them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from riallm.core.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeScaling:
    """kind "ntk": theta grows so that the slowest pair turns `factor` times slower. kind "yarn" (Peng et al. 2023):
    fast pairs stay, slow ones are interpolated, those between `beta_fast` and `beta_slow` turns are blended, and
    attention gets a temperature. original_context: tokens that the unscaled model was trained on."""

    kind: Literal["ntk", "yarn"]
    factor: float
    original_context: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0


def frequencies(head_dim: int, theta: float, scaling: RopeScaling | None = None) -> tuple[Tensor, float]:
    """(radians a token for each of the K/2 pairs, factor on cosine and sine), float32."""
    if head_dim % 2:
        raise UsageError(f"rotary embedding needs an even head size, got {head_dim}")
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    plain = theta**-exponents
    if scaling is None:
        return plain.float(), 1.0
    if scaling.factor < 1.0:
        raise UsageError(f"rope_scaling.factor is {scaling.factor}; it says how many times longer, so at least 1")
    if scaling.kind == "ntk":
        grown = theta * scaling.factor ** (head_dim / (head_dim - 2))
        return (grown**-exponents).float(), 1.0
    turns = scaling.original_context * plain / (2 * math.pi)
    kept = ((turns - scaling.beta_slow) / (scaling.beta_fast - scaling.beta_slow)).clamp(0.0, 1.0)
    blended = plain * kept + plain / scaling.factor * (1.0 - kept)
    return blended.float(), 0.1 * math.log(scaling.factor) + 1.0


def angles(positions: Tensor, inverse: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Cosine and sine (B, 1, T, K/2) for positions (B, T), computed in float32: bfloat16 cannot count to 512."""
    turned = positions[:, None, :, None].float() * inverse.to(positions.device)
    return turned.cos() * scale, turned.sin() * scale


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """x (B, H, T, K) turned by its positions; the result has the dtype of x."""
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)
    return turned.to(x.dtype)

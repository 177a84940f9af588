"""Rotary position embedding (Su et al. 2021), and its scaling for contexts beyond what theta carries.

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
    """original_context: tokens that the unscaled model was trained on; factor: how many times longer it is to be.

    kind "linear": all pairs turn `factor` times slower. "ntk": theta grows so that only the slowest pair does. "yarn"
    (Peng et al. 2023, and their code's rounding): pairs of more than `beta_fast` turns stay, those of fewer than
    `beta_slow` are slowed, those between are blended, and attention gets a temperature. "llama3": the same with
    `high_freq_factor` and `low_freq_factor` turns, another blend, and no temperature.
    """

    kind: Literal["linear", "ntk", "yarn", "llama3"]
    factor: float
    original_context: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0


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
    temperature = 1.0
    if scaling.kind == "linear":
        found = plain / scaling.factor
    elif scaling.kind == "ntk":
        found = (theta * scaling.factor ** (head_dim / (head_dim - 2))) ** -exponents
    elif scaling.kind == "yarn":
        found = _blended(plain, scaling.factor, _kept_by_place(head_dim, theta, scaling))
        temperature = 0.1 * math.log(scaling.factor) + 1.0
    else:
        turns = scaling.original_context * plain / (2 * math.pi)
        width = scaling.high_freq_factor - scaling.low_freq_factor
        found = _blended(plain, scaling.factor, ((turns - scaling.low_freq_factor) / width).clamp(0.0, 1.0))
    return found.float(), temperature


def _blended(plain: Tensor, factor: float, kept: Tensor) -> Tensor:
    return plain * kept + plain / factor * (1.0 - kept)


def _kept_by_place(head_dim: int, theta: float, scaling: RopeScaling) -> Tensor:
    """YaRN's share of each pair that stays: falls from the pair of `beta_fast` turns to that of `beta_slow`."""

    def pair_of(turns: float) -> float:
        return head_dim * math.log(scaling.original_context / (turns * 2 * math.pi)) / (2 * math.log(theta))

    first = max(math.floor(pair_of(scaling.beta_fast)), 0)
    last = min(math.ceil(pair_of(scaling.beta_slow)), head_dim - 1)
    pairs = torch.arange(head_dim // 2, dtype=torch.float64)
    return 1.0 - ((pairs - first) / max(last - first, 1e-3)).clamp(0.0, 1.0)


def angles(positions: Tensor, inverse: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Cosine and sine (B, 1, T, K/2) for positions (B, T), computed in float32: bfloat16 cannot count to 512."""
    turned = positions[:, None, :, None].float() * inverse.to(positions.device)
    return turned.cos() * scale, turned.sin() * scale


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """x (B, H, T, K) turned by its positions; the result has the dtype of x."""
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)
    return turned.to(x.dtype)

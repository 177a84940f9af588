"""Root mean square normalisation (Zhang and Sennrich 2019)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """x / rms(x), times a learned gain unless `gain` is False; statistics in float32 whatever the input."""

    def __init__(self, size: int, *, eps: float, gain: bool = True) -> None:
        super().__init__()
        self.size, self.eps = size, eps
        self.weight = nn.Parameter(torch.ones(size)) if gain else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) -> (..., size), in the input's dtype."""
        weight = None if self.weight is None else self.weight.float()
        return F.rms_norm(x.float(), (self.size,), weight, self.eps).to(x.dtype)

"""Linear maps and embeddings: weights in one dtype, activations in another, and the cast in one visible place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from riallm.quant.blocks import Bits, rounded
from riallm.quant.matmul import linear
from riallm.quant.packed import BITS, packable
from riallm.quant.prepared import Prepared, rows


class Linear(nn.Linear):
    """`nn.Linear` whose weights are cast to the input's dtype: float32 masters under bfloat16 activations.

    bits: compute with the weights as they are when kept in so many bits, and train through the rounding.
    """

    bits: Bits | None = None

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        weight = self.weight if self.bits is None else rounded(self.weight, self.bits)
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return F.linear(input, weight.to(input.dtype), bias)


class Embedding(nn.Embedding):
    """`nn.Embedding` that gives logits as well, where the head shares its weights."""

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V)."""
        return F.linear(hidden, self.weight.to(hidden.dtype))


class PackedModule(nn.Module):
    """What computes with a matrix that stays in few bits, and moves to other devices with it."""

    def __init__(self, weight: Prepared) -> None:
        super().__init__()
        self.prepared = weight

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.prepared = replace(self.prepared, codes=fn(self.prepared.codes), scales=fn(self.prepared.scales))
        return self


class PackedLinear(PackedModule):
    """A linear map; the gradient reaches its input, not its weights."""

    def __init__(self, weight: Prepared, bias: Tensor | None = None) -> None:
        super().__init__(weight)
        self.bias = bias

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return linear(input, self.prepared, self.bias)


class PackedEmbedding(PackedModule):
    """`Embedding` whose matrix stays in few bits."""

    def forward(self, input: Tensor) -> Tensor:
        """(...) of ids -> (..., D) in float32."""
        return rows(self.prepared, input.reshape(-1)).view(*input.shape, -1)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V) in float32."""
        return linear(hidden, self.prepared, out_dtype=torch.float32)


def round_weights(model: nn.Module, bits: Bits | None) -> None:
    """From now on every linear map that would be kept in blocks computes with its weights in `bits`."""
    for module in model.modules():
        if isinstance(module, Linear) and (bits is None or packable(module.weight, BITS[bits])):
            module.bits = bits

"""The compiled kernel of a mixture's experts (`experts.cpp`), for processors and where no gradient is wanted; `moe`
does without where it is not.

What a token gets is the same bits whatever tokens are computed beside it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from riallm.quant.compiled import function_of

SOURCE = Path(__file__).with_name("experts.cpp")
LANES = 16
"""Of which sizes are multiples."""


class _Call(ctypes.Structure):
    """As `experts.cpp` has it."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("num", "each", "experts", "hidden", "inner")),
        *((name, ctypes.c_void_p) for name in ("x", "chosen", "weights", "gate", "up", "down")),
        *((name, ctypes.c_void_p) for name in ("gate_bias", "up_bias", "down_bias", "out")),
    ]


def _experts() -> Callable[..., None] | None:
    return function_of(SOURCE, "riallm_experts", ctypes.c_int, ctypes.c_void_p)


def takes(x: Tensor, weights: Sequence[Tensor]) -> bool:
    """Whether it computes these experts of x (N, D): in float32 on the processor, without gradients."""
    return (
        not torch.is_grad_enabled()
        and all(type(each.data) is Tensor and each.is_cpu and each.dtype is torch.float32 for each in (x, *weights))
        and not any(size % LANES for size in weights[0].shape[1:])
        and _experts() is not None
    )


def mixed(x: Tensor, chosen: Tensor, shares: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """x (N, D), chosen and shares (N, k), weights and biases of gate, up, down as `moe.Experts` has them -> (N, D)."""
    compiled = _experts()
    assert compiled is not None
    given = [x, chosen, shares.float(), *weights, *biases]
    held = [each.contiguous() for each in given]  # as long as the call
    out = torch.empty_like(held[0])
    num, inner, hidden = weights[0].shape
    places = (each.data_ptr() for each in (*held, out))
    call = _Call(len(x), chosen.shape[1], num, hidden, inner, *places)
    compiled(torch.get_num_threads(), ctypes.byref(call))
    return out

"""Packed matrices times activations, without unpacking the matrix into memory.

For int4, int8, q4_k and q6_k a row of x is rounded to whole numbers of 8 bits in groups of 32 columns; nf4 computes
with x as it is. Every output element is one fixed series of float32 operations (`kernels.cpp` writes them down), so a
row of the result does not depend on the batch that it is in, on the instruction set or on the number of threads, and
`linear_reference` gives the same bits in plain torch.

What is not here: AMX, and kernels for a GPU; there a matrix is dequantised and multiplied. Letters: M rows of x,
O outputs, I columns, N groups of columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from riallm.core.errors import UsageError
from riallm.quant.blocks import BLOCK
from riallm.quant.compiled import kernels
from riallm.quant.packed import KINDS, Kind
from riallm.quant.prepared import Parts, Prepared, parts, rows, whole

SMALLEST = 2.0**-100
"""A group of x whose largest is below it counts as zeros: the inverse of its scale would overflow."""
NUMBER = {kind: number for number, kind in enumerate(KINDS)}
"""How the library calls the kinds."""
_FLOATS = (torch.float32, torch.bfloat16)
_SLAB = 4096  # outputs that the reference holds as numbers at a time


def linear(x: Tensor, prepared: Prepared, bias: Tensor | None = None, out_dtype: torch.dtype | None = None) -> Tensor:
    """x (..., I) times the matrix (O, I), plus bias (O,): (..., O) in `out_dtype`, by default x's.

    x and the result are float32 or bfloat16; sums are float32 and rounded once. A row of x that holds a NaN or an
    infinity gives a row of NaN (for nf4 what float32 makes of it). The gradient reaches x and the bias; the matrix has
    none. Raises UsageError for another width or dtype.
    """
    out = x.dtype if out_dtype is None else out_dtype
    num_outputs, num_columns = prepared.shape
    if x.shape[-1] != num_columns:
        raise UsageError(f"got x of {tuple(x.shape)} for a matrix of {prepared.shape}; its last size must be the same")
    if x.dtype not in _FLOATS or out not in _FLOATS:
        raise UsageError(f"packed matrices take and give float32 or bfloat16, got {x.dtype} and {out}; convert before")
    if torch.is_grad_enabled() and (x.requires_grad or (bias is not None and bias.requires_grad)):
        product: Tensor = _Linear.apply(x, prepared)  # type: ignore[no-untyped-call]
        return (product if bias is None else product + bias.float()).to(out)
    if x.device.type != "cpu":
        return F.linear(x.float(), whole(prepared), None if bias is None else bias.float()).to(out)
    if kernels().linear is None:
        return linear_reference(x.reshape(-1, num_columns), prepared, bias, out).view(*x.shape[:-1], num_outputs)
    return _compiled(x.contiguous(), prepared, bias, out)


def linear_reference(
    x: Tensor, prepared: Prepared, bias: Tensor | None = None, out_dtype: torch.dtype | None = None
) -> Tensor:
    """What `linear` computes for x (M, I), bit for bit, in plain torch."""
    wide = x.float()
    rounded, scales = round_rows(wide)
    slabs = []
    for ids in _slabs(prepared, x.device):
        weight = parts(prepared, ids)
        slabs.append(_real(wide, weight) if prepared.kind == "nf4" else _whole(rounded, scales, weight))
    product = torch.cat(slabs, dim=1)
    return (product if bias is None else product + bias.float()).to(x.dtype if out_dtype is None else out_dtype)


def round_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """(M, I) float32 -> whole numbers (M, N, BLOCK), as floats, and scales (M, N): the nearest, ties to even, with the
    largest of a group at 127. A group with a NaN or an infinity has a scale of NaN, one of tiny numbers one of 0."""
    groups = x.reshape(len(x), -1, BLOCK)
    largest = groups.abs().amax(dim=-1)
    kept = (largest >= SMALLEST) & largest.isfinite()
    # A number before "/" would be multiplied with a reciprocal, which is rounded twice.
    inverse = torch.where(kept, torch.full_like(largest, 127.0) / largest, 0.0)
    rounded = torch.where(kept[..., None], groups * inverse[..., None], 0.0).round()
    scales = torch.where(kept, largest / 127.0, torch.where(largest.isfinite(), 0.0, torch.nan))
    return rounded, scales


def _whole(rounded: Tensor, scales: Tensor, weight: Parts) -> Tensor:
    """(M, O): group after group, exact dot products under two scales. Floats hold whole numbers up to 2^24 exactly, and
    a dot of 32 stays below, so any order of its sum gives the same."""
    codes, weight_scales, minima = weight
    width = codes.shape[-1]
    rounded = rounded.reshape(len(rounded), -1, width)
    scales = scales.repeat_interleave(BLOCK // width, dim=1)
    result = rounded.new_zeros(len(rounded), len(codes))
    for n in range(codes.shape[1]):
        scale = weight_scales[:, n] * scales[:, n, None]
        result = result + scale * (rounded[:, n] @ codes[:, n].T)
        if minima is not None:
            result = result - minima[:, n] * (scales[:, n] * rounded[:, n].sum(dim=-1))[:, None]
    return result


def _real(x: Tensor, weight: Parts) -> Tensor:
    """(M, O) for nf4: in a block two chains of 32 columns, each added one after the other."""
    levels, scales, _ = weight
    num_blocks = levels.shape[1]
    # Of each 32 columns the first sixteen are the first chain's.
    left = x.reshape(len(x), num_blocks, 2, 2, 16).transpose(2, 3).reshape(len(x), 1, num_blocks, 2, 32)
    right = levels.reshape(len(levels), num_blocks, 2, 2, 16).transpose(2, 3).reshape(len(levels), num_blocks, 2, 32)
    result = x.new_zeros(len(x), len(levels))
    for n in range(num_blocks):
        chains = x.new_zeros(len(x), len(levels), 2)
        for c in range(32):
            chains = chains + left[:, :, n, :, c] * right[:, n, :, c]
        result = result + scales[:, n] * (chains[..., 0] + chains[..., 1])
    return result


def _compiled(x: Tensor, prepared: Prepared, bias: Tensor | None, out: torch.dtype) -> Tensor:
    """(..., I) -> (..., O) by the library."""
    found = kernels()
    assert found.linear is not None
    num_outputs, num_columns = prepared.shape
    num_rows = x.numel() // num_columns
    y = torch.empty((*x.shape[:-1], num_outputs), dtype=out)
    workspace = torch.empty(workspace_floats(prepared.kind, x.numel()))
    if bias is not None:
        bias = bias.float().contiguous()
    found.linear(
        found.number,
        torch.get_num_threads(),
        NUMBER[prepared.kind],
        num_rows,
        num_outputs,
        num_columns,
        x.data_ptr(),
        x.dtype == torch.bfloat16,
        prepared.codes.data_ptr(),
        prepared.scales.data_ptr(),
        None if bias is None else bias.data_ptr(),
        y.data_ptr(),
        num_outputs,
        out == torch.bfloat16,
        workspace.data_ptr(),
    )
    return y


def workspace_floats(kind: Kind, size: int) -> int:
    """What the library needs for so many numbers of x: them in 8 bits, a scale for 32 and a start for 16 of them; or,
    for nf4, them in float32."""
    return size if kind == "nf4" else size // 32 * 11


class _Linear(torch.autograd.Function):
    """The product in float32, whose gradient with respect to x passes through the dequantised matrix."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, prepared: Prepared) -> Tensor:
        ctx.prepared, ctx.dtype = prepared, x.dtype
        with torch.no_grad():
            return linear(x.detach(), prepared, None, torch.float32)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        total: Tensor | float = 0.0
        for ids in _slabs(ctx.prepared, grads[0].device):
            total = total + grads[0][..., ids[0] : ids[-1] + 1] @ rows(ctx.prepared, ids)
        assert isinstance(total, Tensor)
        return total.to(ctx.dtype), None


def _slabs(prepared: Prepared, device: torch.device) -> Iterator[Tensor]:
    """Numbers of all rows of the matrix, so many at a time that their numbers fit into memory."""
    for start in range(0, prepared.shape[0], _SLAB):
        yield torch.arange(start, min(start + _SLAB, prepared.shape[0]), device=device)

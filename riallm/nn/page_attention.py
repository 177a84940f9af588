"""The compiled kernel of attention over pages (`attention.cpp`), for processors; `paged` does without where it is not.

Its results are the same bits whatever else is computed in the same call and in however many calls a sequence was read.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from riallm.nn.attention import Ranges
from riallm.quant.compiled import function_of

SOURCE = Path(__file__).with_name("attention.cpp")
KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}


class Stretch(ctypes.Structure):
    """A sequence of a call, as `pages.h` has it."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("first", "last", "num_tokens", "num_files")),
        *((name, ctypes.c_void_p) for name in ("pages", "files", "relations", "terms")),
    ]


class Call(ctypes.Structure):
    """Where keys and values are and what is seen of them, as `pages.h` has it."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("heads", "kv_heads", "head_dim", "kept", "local", "file")),
        *((name, ctypes.c_void_p) for name in ("q", "keys", "values", "key_scales", "value_scales", "out")),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Queries:
    """One sequence of a call: its queries are rows `first` to `last`, and the last stands at `num_tokens - 1`.

    pages: int64, in order. files: (num_tokens) int64, the file of each key. relations: (F, F) uint8. terms: (H, F, F)
    float32, or None. All contiguous.
    """

    first: int
    last: int
    num_tokens: int
    pages: Tensor
    files: Tensor
    relations: Tensor
    terms: Tensor | None


def _attend() -> Callable[..., None] | None:
    return function_of(SOURCE, "riallm_attend", ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


def available() -> bool:
    """Whether there is a compiled kernel here."""
    return _attend() is not None


def kernel() -> int:
    """Where its function is, for another library to call."""
    function: Any = _attend()
    found = ctypes.cast(function, ctypes.c_void_p).value
    assert found is not None
    return found


def attend_pages(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    scales: tuple[Tensor, Tensor] | None,
    queries: Sequence[Queries],
    ranges: Ranges | None,
) -> Tensor:
    """(N, H, K) float32 from q (N, H, K) float32, keys (P, G, K, PAGE) and values (P, G, PAGE, K) in float32, bfloat16,
    or int8 with scales (P, G, PAGE) float32. Every query sees the keys up to its own, within the ranges."""
    compiled = _attend()
    assert compiled is not None
    out = torch.empty_like(q)
    call = call_of(q.shape[1], keys, values, scales, ranges)
    call.q, call.out = q.data_ptr(), out.data_ptr()
    compiled(torch.get_num_threads(), ctypes.byref(call), stretches_of(queries), len(queries))
    return out


def call_of(
    num_heads: int, keys: Tensor, values: Tensor, scales: tuple[Tensor, Tensor] | None, ranges: Ranges | None
) -> Call:
    """The record of a layer's pages, without queries."""
    local, file = (-1, -1) if ranges is None or ranges.local is None else (ranges.local, ranges.file)
    return Call(
        heads=num_heads,
        kv_heads=keys.shape[1],
        head_dim=keys.shape[2],
        kept=KINDS[keys.dtype],
        local=local,
        file=(1 << 62) if file is None else file,
        keys=keys.data_ptr(),
        values=values.data_ptr(),
        key_scales=None if scales is None else scales[0].data_ptr(),
        value_scales=None if scales is None else scales[1].data_ptr(),
    )


def stretches_of(queries: Sequence[Queries]) -> ctypes.Array[Stretch]:
    """The records of sequences; the tensors of `queries` must outlive them."""
    return (Stretch * len(queries))(
        *(
            Stretch(
                each.first,
                each.last,
                each.num_tokens,
                each.relations.shape[-1],
                each.pages.data_ptr(),
                each.files.data_ptr(),
                each.relations.data_ptr(),
                None if each.terms is None else each.terms.data_ptr(),
            )
            for each in queries
        )
    )

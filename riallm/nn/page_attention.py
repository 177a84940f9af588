"""The compiled kernel of attention over pages (`attention.cpp`), for processors; `paged` does without where it is not.

Its results are the same bits whatever else is computed in the same call and in however many calls a sequence was read.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from riallm.nn.attention import Ranges
from riallm.quant.compiled import NotBuilt, kernels, open_library

SOURCE = Path(__file__).with_name("attention.cpp")
KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}


class _Stretch(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("first", "last", "num_tokens", "num_files")),
        *((name, ctypes.c_void_p) for name in ("pages", "files", "relations", "terms")),
    ]


class _Call(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("heads", "kv_heads", "head_dim", "kind", "local", "file")),
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


@functools.cache
def _library() -> ctypes.CDLL | None:
    if kernels().path == "torch":
        return None
    try:
        found = open_library(SOURCE)
    except NotBuilt:
        return None
    found.riallm_attend.restype = None
    found.riallm_attend.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    return found


def available() -> bool:
    """Whether there is a compiled kernel here."""
    return _library() is not None


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
    library = _library()
    assert library is not None
    num_heads, head_dim = q.shape[1:]
    out = torch.empty_like(q)
    local, file = (-1, -1) if ranges is None or ranges.local is None else (ranges.local, ranges.file)
    call = _Call(
        num_heads,
        keys.shape[1],
        head_dim,
        KINDS[keys.dtype],
        local,
        (1 << 62) if file is None else file,
        q.data_ptr(),
        keys.data_ptr(),
        values.data_ptr(),
        *((None, None) if scales is None else (scales[0].data_ptr(), scales[1].data_ptr())),
        out.data_ptr(),
    )
    stretches = (_Stretch * len(queries))(
        *(
            _Stretch(
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
    library.riallm_attend(torch.get_num_threads(), ctypes.byref(call), stretches, len(queries))
    return out

"""A pass of a decoder's blocks as one call into compiled code (`program.cpp`): for packed weights and pages.

Between two kernels that are called one by one from here, the memory waits. A program is the same blocks written down as
operations on buffers of float32. What it computes for a token does not depend on the other tokens of the call.

Letters: N tokens, D hidden, K head size.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from riallm.nn.page_attention import Call, Stretch, call_of, kernel, stretches_of
from riallm.nn.paged import PagedPass, terms_of
from riallm.quant.compiled import function_of, kernels
from riallm.quant.matmul import NUMBER, workspace_floats
from riallm.quant.prepared import Prepared

SOURCE = Path(__file__).with_name("program.cpp")
LARGEST_HEAD = 512
Kind = Literal["norm", "linear", "small", "heads", "attend", "swiglu", "squared_relu", "paths", "add", "mix"]
_KINDS: tuple[Kind, ...] = (
    "norm", "linear", "small", "heads", "attend", "swiglu", "squared_relu", "paths", "add", "mix",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One operation, as `program.cpp` explains them. name: under which its time is told. source, target: numbers of
    buffers; first: the column of the target where the result begins. columns: of a matrix, or of the result. weight: of
    "linear" a packed matrix, of "small" one (O, I) in float32. one, other: bias, gains or factors, float32."""

    kind: Kind
    name: str
    source: int
    target: int
    columns: int
    first: int = 0
    layer: int = 0
    weight: Prepared | Tensor | None = None
    one: Tensor | None = None
    other: Tensor | None = None
    eps: float = -1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Time of the operations of one name: calls in all, and the bytes of weights that went through them."""

    seconds: float
    calls: int
    weight_bytes: int


class _Op(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("kind", "source", "target", "first")),
        *((name, ctypes.c_int64) for name in ("columns", "outputs", "matrix", "layer")),
        *((name, ctypes.c_void_p) for name in ("codes", "scales", "one", "other")),
        ("eps", ctypes.c_float),
    ]


class _Program(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("num_ops", "num_buffers")),
        *((name, ctypes.c_void_p) for name in ("ops", "widths")),
        ("path", ctypes.c_int),
        *((name, ctypes.c_void_p) for name in ("linear", "attend")),
    ]


class _Run(ctypes.Structure):
    _fields_ = [
        ("threads", ctypes.c_int),
        *((name, ctypes.c_int64) for name in ("rows", "layer_pages")),
        ("call", Call),
        *((name, ctypes.c_void_p) for name in ("buffers", "cosine", "sine", "places")),
        ("stretches", ctypes.POINTER(Stretch)),
        ("num_stretches", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("terms", "workspace", "seconds")),
    ]


def _run() -> Callable[..., None] | None:
    return function_of(SOURCE, "riallm_run", ctypes.c_void_p, ctypes.c_void_p)


def available() -> bool:
    """Whether programs run here."""
    return _run() is not None


class Program:
    """Operations in order. The first buffer holds the tokens' embeddings when a run begins, and the second too where
    `keeps_first`; the last operation's target holds the result.

    widths: floats in a row of each buffer. alphas: each layer's learned terms (H, 3) for relations between files.
    """

    def __init__(
        self,
        ops: Sequence[Op],
        *,
        widths: Sequence[int],
        num_heads: int,
        alphas: Sequence[Tensor | None],
        keeps_first: bool = False,
    ) -> None:
        self.ops, self.widths = tuple(ops), tuple(widths)
        self._num_heads, self._alphas, self._keeps_first = num_heads, tuple(alphas), keeps_first
        self._records = (_Op * len(ops))(*map(_record, ops))
        self._widths = (ctypes.c_int64 * len(widths))(*widths)
        self._seconds = (ctypes.c_double * len(ops))()
        self._room = torch.empty(0)
        self._laid_out: tuple[int, list[Tensor], Tensor] | None = None
        self._lock, self.num_runs = threading.Lock(), 0
        self.path = kernels().number
        linear = kernels().linear
        assert linear is not None
        self._program = _Program(
            num_ops=len(ops),
            num_buffers=len(widths),
            ops=ctypes.addressof(self._records),
            widths=ctypes.addressof(self._widths),
            path=self.path,
            linear=ctypes.cast(linear, ctypes.c_void_p),  # type: ignore[arg-type]
            attend=kernel(),
        )

    def run(self, x: Tensor, turn: tuple[Tensor, Tensor], within: PagedPass) -> Tensor:
        """x (N, D): embeddings. turn: cosine and sine (N, K/2) of the positions. The result of the last operation in
        float32; keys and values of the tokens are in their pages then."""
        compiled = _run()
        assert compiled is not None
        rows, store = len(x), within.store
        cosine, sine = (each.float().contiguous() for each in turn)
        terms = self._terms(within)
        of_terms = None if terms is None else _pointers(terms)
        stretches = stretches_of(within.queries)
        with self._lock:
            buffers, workspace = self._buffers(rows)
            buffers[0].copy_(x)
            if self._keeps_first:
                buffers[1].copy_(x)
            of_buffers = _pointers(buffers)
            run = _Run(
                threads=torch.get_num_threads(),
                rows=rows,
                layer_pages=store.num_pages,
                call=call_of(self._num_heads, *store.layer(0), within.ranges),
                buffers=ctypes.addressof(of_buffers),
                cosine=cosine.data_ptr(),
                sine=sine.data_ptr(),
                places=within.places.data_ptr(),
                stretches=stretches,
                num_stretches=len(stretches),
                terms=None if of_terms is None else ctypes.addressof(of_terms),
                workspace=workspace.data_ptr(),
                seconds=ctypes.addressof(self._seconds),
            )
            self.num_runs += 1
            compiled(ctypes.byref(self._program), ctypes.byref(run))
            return buffers[self.ops[-1].target].clone()

    def spent(self) -> dict[str, Spent]:
        """What the operations took since the start, by their names."""
        found: dict[str, Spent] = {}
        for op, seconds in zip(self.ops, self._seconds, strict=True):
            one = found.get(op.name, Spent(seconds=0.0, calls=0, weight_bytes=0))
            weight = (
                0 if op.weight is None else op.weight.num_bytes if isinstance(op.weight, Prepared) else op.weight.nbytes
            )
            found[op.name] = Spent(
                seconds=one.seconds + seconds,
                calls=one.calls + self.num_runs,
                weight_bytes=one.weight_bytes + weight * self.num_runs,
            )
        return found

    def _terms(self, within: PagedPass) -> list[Tensor | None] | None:
        """Of every layer and sequence; None where no sequence has two files."""
        if all(each.relations.shape[-1] == 1 for each in within.queries) or not any(
            alpha is not None for alpha in self._alphas
        ):
            return None
        return [terms_of(alpha, each.relations) for alpha in self._alphas for each in within.queries]

    def _buffers(self, rows: int) -> tuple[list[Tensor], Tensor]:
        """Memory of all buffers (N, width) and of the kernel; the next run of as many rows has the same."""
        if self._laid_out is None or self._laid_out[0] != rows:
            sizes = [-(-rows * width // 16) * 16 for width in self.widths]  # each begins on a line of its own
            most = max(
                workspace_floats(op.weight.kind, rows * op.columns)
                for op in self.ops
                if isinstance(op.weight, Prepared)
            )
            if len(self._room) < sum(sizes) + most:
                self._room = torch.empty(sum(sizes) + most)
            starts = accumulate(sizes, initial=0)
            buffers = [
                self._room[start : start + rows * width].view(rows, width)
                for start, width in zip(starts, self.widths, strict=False)
            ]
            self._laid_out = rows, buffers, self._room[sum(sizes) :]
        return self._laid_out[1:]


def _record(op: Op) -> _Op:
    packed = op.weight if isinstance(op.weight, Prepared) else None
    small = op.weight if isinstance(op.weight, Tensor) else None
    outputs = packed.shape[0] if packed else len(small) if small is not None else 0
    codes = packed.codes.data_ptr() if packed else None if small is None else small.data_ptr()
    return _Op(
        kind=_KINDS.index(op.kind),
        source=op.source,
        target=op.target,
        first=op.first,
        columns=op.columns,
        outputs=outputs,
        matrix=NUMBER[packed.kind] if packed else 0,
        layer=op.layer,
        codes=codes,
        scales=packed.scales.data_ptr() if packed else None,
        one=None if op.one is None else op.one.data_ptr(),
        other=None if op.other is None else op.other.data_ptr(),
        eps=op.eps,
    )


def _pointers(tensors: Sequence[Tensor | None]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(tensors))(*(None if each is None else each.data_ptr() for each in tensors))

"""Matrices in few bits: the kinds that are kept and computed with as they are, and what each stands for.

    int4, int8   whole numbers in blocks of 32, one scale a block (`blocks`); GGUF's Q4_0 and Q8_0 hold the same
    nf4          sixteen levels of a normal distribution in blocks of 64 (`nf4`)
    q4_k, q6_k   GGUF's super-blocks of 256, kept byte for byte (`superblocks`)

Letters: O rows, I columns, N blocks of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from riallm.core.errors import UsageError
from riallm.quant import blocks, nf4, superblocks

Kind = Literal["int4", "int8", "nf4", "q4_k", "q6_k"]
KINDS: tuple[Kind, ...] = get_args(Kind)
BITS: dict[blocks.Bits, Kind] = {4: "int4", 8: "int8"}

BLOCK: dict[Kind, int] = {
    "int4": blocks.BLOCK,
    "int8": blocks.BLOCK,
    "nf4": nf4.BLOCK,
    "q4_k": superblocks.BLOCK,
    "q6_k": superblocks.BLOCK,
}
"""A row is whole blocks of so many columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A matrix (O, I) of one kind. codes: (O, bytes) int8 for "int8", uint8 otherwise; a K-quant's hold all of it.
    scales: (O, N) float16, None for K-quants, whose codes carry their own."""

    kind: Kind
    codes: Tensor
    scales: Tensor | None

    @property
    def shape(self) -> tuple[int, int]:
        """(O, I)."""
        rows, num_bytes = self.codes.shape
        if self.kind in superblocks.BYTES:
            return rows, num_bytes // superblocks.BYTES[self.kind] * superblocks.BLOCK
        return rows, num_bytes * (1 if self.kind == "int8" else 2)

    @property
    def num_bytes(self) -> int:
        """Memory of codes and scales."""
        return self.codes.nbytes + (0 if self.scales is None else self.scales.nbytes)


def packable(weight: Tensor, kind: Kind) -> bool:
    """Whether a tensor is kept in few bits when that is asked for: matrices whose rows are whole blocks, not tiny."""
    return weight.ndim == 2 and weight.shape[1] % BLOCK[kind] == 0 and weight.numel() >= 4096


def quantise(weight: Tensor, kind: Kind) -> Packed:
    """(O, I) as the nearest that a kind can hold. Raises UsageError for a row that is not whole blocks, and for a
    K-quant, which is read and never made."""
    if kind in superblocks.BYTES:
        raise UsageError(f"{kind} is read from GGUF files and not made here; make one of int4, int8, nf4")
    if weight.ndim != 2 or weight.shape[1] % BLOCK[kind]:
        raise UsageError(f"{kind} needs rows of whole blocks of {BLOCK[kind]}, got a tensor of {tuple(weight.shape)}")
    if kind == "nf4":
        codes, scales = nf4.quantise(weight)
    else:
        codes, scales = blocks.quantise(weight, 4 if kind == "int4" else 8)
    return Packed(kind=kind, codes=codes, scales=scales)


def dequantise(packed: Packed) -> Tensor:
    """(O, I) in float32, exactly what the codes say."""
    if packed.scales is None:
        return superblocks.dequantise(packed.codes, packed.kind)
    if packed.kind == "nf4":
        return nf4.dequantise(packed.codes, packed.scales)
    return blocks.dequantise(packed.codes, packed.scales)

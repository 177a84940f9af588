"""Tensors by name that are read when they are asked for, and the ways in which a tensor is kept.

A way is a kind of `riallm.quant.packed` or the name of a plain type. Letters: O rows, I columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

import torch
from torch import Tensor

from riallm.core.errors import CheckpointError
from riallm.quant import superblocks
from riallm.quant.packed import BLOCK, KINDS, Kind, Packed, dequantise, packable, quantise

Weight: TypeAlias = Tensor | Packed
KindOf: TypeAlias = Callable[[str, "Info"], str]
"""Name and present way -> the way in which it shall be kept."""

PLAIN: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
CHUNK_ELEMENTS = 1 << 20
"""Rows are quantised and widened so many numbers at a time, or a matrix would be in memory several times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """kept: the way. shape: of the numbers, however they are packed."""

    kept: str
    shape: tuple[int, ...]

    @property
    def parts(self) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """What lies on the disk: "" for a plain tensor; ".codes" and ".scales" for a packed one."""
        if self.kept in PLAIN:
            return {"": (PLAIN[self.kept], self.shape)}
        rows, columns = self.shape
        if self.kept in superblocks.BYTES:
            width = columns // superblocks.BLOCK * superblocks.BYTES[self.kept]
            return {".codes": (torch.uint8, (rows, width))}
        kind = kind_named(self.kept)
        scales = (torch.float16, (rows, columns // BLOCK[kind]))
        if kind == "int8":
            return {".codes": (torch.int8, (rows, columns)), ".scales": scales}
        return {".codes": (torch.uint8, (rows, columns // 2)), ".scales": scales}

    @property
    def num_bytes(self) -> int:
        """On the disk, and in memory as it is kept."""
        return sum(prod(shape) * dtype.itemsize for dtype, shape in self.parts.values())


def kind_named(name: str) -> Kind:
    """Raises CheckpointError for a way that this version does not know."""
    for kind in KINDS:
        if kind == name:
            return kind
    raise CheckpointError(f"no way to keep a tensor is called {name!r}; known are {', '.join((*KINDS, *PLAIN))}")


def checked(info: Info, what: str) -> Info:
    """The same. Raises CheckpointError for an unknown way, a shape that is none, or rows that are not whole blocks."""
    if any(type(size) is not int or size < 0 for size in info.shape) or prod(info.shape) >= 1 << 62:
        raise CheckpointError(f"{what} has shape {info.shape}; expected numbers that are not negative")
    if info.kept not in PLAIN:
        kind = kind_named(info.kept)
        if len(info.shape) != 2 or info.shape[1] % BLOCK[kind]:
            raise CheckpointError(f"{what} is kept as {kind} with shape {info.shape}; expected rows of {BLOCK[kind]}s")
    return info


def info_of(weight: Weight) -> Info:
    """How a tensor in memory is kept. Raises CheckpointError for a type that is none of ours."""
    if isinstance(weight, Packed):
        return Info(kept=weight.kind, shape=weight.shape)
    name = str(weight.dtype).removeprefix("torch.")
    if name not in PLAIN:
        raise CheckpointError(f"a tensor of type {name} is no weight; expected one of {', '.join(PLAIN)}")
    return Info(kept=name, shape=tuple(weight.shape))


def parts_of(weight: Weight) -> dict[str, Tensor]:
    """The plain tensors of a weight, as `Info.parts` names them."""
    if isinstance(weight, Tensor):
        return {"": weight}
    return {".codes": weight.codes, **({} if weight.scales is None else {".scales": weight.scales})}


def from_parts(info: Info, parts: Mapping[str, Tensor]) -> Weight:
    """The inverse of `parts_of`."""
    if info.kept in PLAIN:
        return parts[""]
    return Packed(kind=kind_named(info.kept), codes=parts[".codes"], scales=parts.get(".scales"))


def as_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a tensor, row by row; copied only where it is not contiguous."""
    flat = tensor.detach().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


def from_bytes(data: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """Bytes (N,) uint8 as what they mean; no copy."""
    return (data.view(dtype) if data.numel() else torch.empty(0, dtype=dtype)).reshape(shape)


def keep(weight: Weight, kept: str) -> Weight:
    """The same numbers, as near as another way can hold them; unchanged where that is their own way."""
    if info_of(weight).kept == kept:
        return weight
    if kept in PLAIN:
        return widened(weight, PLAIN[kept])
    info = checked(Info(kept=kept, shape=tuple(weight.shape)), "a tensor")
    whole = {ending: torch.empty(shape, dtype=dtype) for ending, (dtype, shape) in info.parts.items()}
    at = 0
    for rows in _chunks(weight):
        for ending, part in parts_of(quantise(widened(rows, torch.float32), kind_named(kept))).items():
            whole[ending][at : at + rows.shape[0]] = part
        at += rows.shape[0]
    return from_parts(info, whole)


def widened(weight: Weight, dtype: torch.dtype) -> Tensor:
    """A plain tensor of a type; a packed one becomes the numbers that its codes say, rounded to the type."""
    if isinstance(weight, Tensor):
        return weight.to(dtype)
    target = torch.empty(weight.shape, dtype=dtype)
    at = 0
    for rows in _chunks(weight):
        assert isinstance(rows, Packed)
        target[at : at + rows.shape[0]] = dequantise(rows)
        at += rows.shape[0]
    return target


def rows_of(weight: Weight, index: Tensor | slice) -> Weight:
    """Rows of a matrix or entries of a vector, in the order of the index; packed rows stay packed."""
    if isinstance(weight, Tensor):
        return weight[index]
    scales = None if weight.scales is None else weight.scales[index]
    return Packed(kind=weight.kind, codes=weight.codes[index], scales=scales)


def _chunks(weight: Weight) -> Iterator[Weight]:
    rows, columns = weight.shape
    step = max(1, CHUNK_ELEMENTS // max(columns, 1))
    for start in range(0, rows, step):
        yield rows_of(weight, slice(start, start + step))


class Tensors(Mapping[str, Weight]):
    """Weights by name, each read when it is asked for; what they are is known without reading."""

    def __init__(self, infos: Mapping[str, Info], load: Callable[[str], Weight]) -> None:
        """load: gives the weight of a name, as its info says."""
        self._infos = dict(infos)
        self._load = load

    def info(self, name: str) -> Info:
        """How a tensor is kept, without reading it."""
        return self._infos[name]

    def __getitem__(self, name: str) -> Weight:
        if name not in self._infos:
            raise KeyError(name)
        return self._load(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._infos)

    def __len__(self) -> int:
        return len(self._infos)

    def __contains__(self, name: object) -> bool:
        return name in self._infos

    def in_order(self, names: Iterable[str]) -> Tensors:
        """The same in another order, or some of them."""
        return Tensors({name: self._infos[name] for name in names}, self._load)

    def renamed(self, old_of: Mapping[str, str], change: Callable[[str, Weight], Weight] | None = None) -> Tensors:
        """New names -> old ones. change: is given the new name and the weight, and keeps way and shape."""

        def load(name: str) -> Weight:
            weight = self[old_of[name]]
            return weight if change is None else change(name, weight)

        return Tensors({name: self.info(old) for name, old in old_of.items()}, load)

    def joined(self, more: Tensors) -> Tensors:
        """Both; a name of `more` goes before."""
        infos = {**self._infos, **{name: more.info(name) for name in more}}
        return Tensors(infos, lambda name: (more if name in more else self)[name])

    def kept_as(self, kind_of: KindOf) -> Tensors:
        """The same, each kept in the way that `kind_of` says; what stays as it is stays byte for byte."""
        infos = {
            name: checked(Info(kept=kind_of(name, info), shape=info.shape), name) for name, info in self._infos.items()
        }
        return Tensors(infos, lambda name: keep(self[name], infos[name].kept))


def in_memory(weights: Mapping[str, Weight]) -> Tensors:
    """Weights that are there already."""
    return Tensors({name: info_of(weight) for name, weight in weights.items()}, lambda name: weights[name])


def packed_as(kind: Kind | None, *, plain: str | None = None) -> KindOf:
    """Matrices that are worth it in a kind. Of the rest, matrices become `plain`, and vectors float32 (None: both stay
    as they are; what is packed becomes bfloat16)."""

    def kind_of(name: str, info: Info) -> str:
        if kind is not None and packable(torch.empty(info.shape, device="meta"), kind):
            return kind
        if plain is None:
            return info.kept if info.kept in PLAIN else "bfloat16"
        return plain if len(info.shape) >= 2 else "float32"

    return kind_of

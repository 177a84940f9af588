"""Small changes of a model's linear maps, handed to a forward call: low-rank adapters (Hu et al. 2021) as values.

A hook is the name of a linear map as the model's modules call it, "layers.3.self_attn.q_proj" for instance. Letters:
M rows, I inputs and O outputs of a map, R rank.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from riallm.core.errors import UsageError

EXACT_BITS = 53
"""Whole numbers of so many bits are exact in float64, and so are their sums in any order."""

AT_ONCE = 1 << 17
"""Numbers of x that are made whole at a time, so that they stay in the cache."""


class Whole(NamedTuple):
    """A matrix in whole numbers (N, K) of float64, and what one of them stands for, (N, 1)."""

    numbers: Tensor
    unit: Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LowRank:
    """down (R, I), up (O, R): the output of a map gets x @ down^T @ up^T more. A scale is multiplied into `up`."""

    down: Tensor
    up: Tensor
    _whole: tuple[Whole, Whole] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.down.ndim != 2 or self.up.ndim != 2 or not self.down.shape[0] == self.up.shape[1] > 0:
            raise UsageError(
                f"got down {tuple(self.down.shape)} and up {tuple(self.up.shape)}; they are (rank, inputs) and "
                "(outputs, rank) of the same rank, at least 1"
            )

    def __call__(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O) in x's type, sums in wider ones.

        Without gradients a row gets the same bits whatever rows are beside it, as a packed matrix gives them: numbers
        are rounded to whole ones, some 20 bits of them, whose products float64 adds without rounding.
        """
        if torch.is_grad_enabled():
            return F.linear(F.linear(x.float(), self.down.float()), self.up.float()).to(x.dtype)
        down, up = self._whole or (whole(self.down), whole(self.up))
        rows = x.reshape(-1, x.shape[-1])
        at_once = max(1, AT_ONCE // x.shape[-1])
        parts = (rows[first : first + at_once] for first in range(0, len(rows), at_once))
        out = torch.cat([steady(steady(part.float(), down), up) for part in parts])
        return out.view(*x.shape[:-1], -1).to(x.dtype)

    def frozen(self, device: torch.device | str) -> LowRank:
        """A copy that nobody trains, ready for many calls."""
        down, up = (each.detach().to(device, torch.float32, copy=True) for each in (self.down, self.up))
        return LowRank(down=down, up=up, _whole=(whole(down), whole(up)))


def whole(x: Tensor) -> Whole:
    """Round each row of x (N, K) to as many bits as let a sum of K products of two such rows be exact."""
    bits = (EXACT_BITS - x.shape[-1].bit_length()) // 2
    unit = x.abs().amax(dim=-1, keepdim=True).double().clamp(min=2.0**-500) / 2.0**bits
    return Whole((x.double() / unit).round_(), unit)


def steady(x: Tensor, matrix: Whole) -> Tensor:
    """x (M, K) times the matrix (N, K): (M, N) in float32."""
    left = whole(x)
    return (F.linear(left.numbers, matrix.numbers) * left.unit * matrix.unit.T).float()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Adapter:
    """Low-rank changes by hook. name and version say which one it is; of one name the versions count up."""

    name: str
    version: int
    tensors: Mapping[str, LowRank]

    def __post_init__(self) -> None:
        object.__setattr__(self, "tensors", MappingProxyType(dict(self.tensors)))

    def inside(self, place: str) -> AdapterPart:
        """What there is for the module `place`."""
        return AdapterPart(tensors=self.tensors, place=place)

    def check(self, hooks: Mapping[str, tuple[int, int]]) -> None:
        """Raises UsageError unless every hook is one of a model's (`Model.hooks`: (O, I) by name) and its tensors have
        that map's sizes and hold numbers only."""
        for hook, low in self.tensors.items():
            if hook not in hooks:
                raise UsageError(f"{self}: the model has no hook {hook}; one of them is {next(iter(hooks), 'none')}")
            (outputs, inputs), rank = hooks[hook], low.down.shape[0]
            if low.down.shape[1] != inputs or low.up.shape[0] != outputs:
                raise UsageError(
                    f"{self}: {hook} is a map of {(outputs, inputs)}; got down {tuple(low.down.shape)} and up "
                    f"{tuple(low.up.shape)}, expected {(rank, inputs)} and {(outputs, rank)}"
                )
            if not (low.down.isfinite().all() and low.up.isfinite().all()):
                raise UsageError(f"{self}: the tensors of {hook} hold what is no number, or infinite")

    def frozen(self, device: torch.device | str = "cpu") -> Adapter:
        """A copy of its own on a device, which later training of the tensors does not change."""
        return replace(self, tensors={hook: low.frozen(device) for hook, low in self.tensors.items()})

    def identity(self) -> str:
        """A hash of name, version and tensors as they are now."""
        found = hashlib.blake2b(repr((self.name, self.version)).encode(), digest_size=16)
        for hook, low in sorted(self.tensors.items()):
            for tensor in (low.down, low.up):
                kept = tensor.detach().float().cpu().contiguous()
                found.update(repr((hook, tuple(kept.shape))).encode() + kept.numpy().tobytes())
        return found.hexdigest()

    def __str__(self) -> str:
        return f"adapter {self.name} version {self.version}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AdapterPart:
    """An adapter as one module of the model sees it, which knows its own maps but not where it stands."""

    tensors: Mapping[str, LowRank]
    place: str

    def inside(self, name: str) -> AdapterPart:
        """What there is for a module of this one."""
        return AdapterPart(tensors=self.tensors, place=f"{self.place}.{name}")

    def of(self, name: str) -> LowRank | None:
        """What there is for a map of this module."""
        return self.tensors.get(f"{self.place}.{name}")


def adapted(linear: nn.Module, x: Tensor, adapter: AdapterPart | None, name: str) -> Tensor:
    """(..., I) -> (..., O): what the map `name` gives, with what the adapter adds to it. None adds nothing."""
    out: Tensor = linear(x)
    low = None if adapter is None else adapter.of(name)
    return out if low is None else out + low(x)

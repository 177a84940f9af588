"""What a model carries from one call to the next: explicit values, passed in and given back, never module buffers.

Letters: B rows, G key-value heads, S tokens so far, K head size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from riallm.nn.meta import TokenMeta


@dataclass(frozen=True, slots=True, kw_only=True)
class KVState:
    """Keys and values (B, G, S, K) of one layer. Extending gives a new value, so a fork costs nothing.

    before: what all rows have in common and stands before their own, as a state of one row; it is kept once, however
    many rows there are.
    """

    keys: Tensor
    values: Tensor
    before: KVState | None = None

    @property
    def num_tokens(self) -> int:
        """S, with what stands before."""
        return self.keys.shape[2] + (self.before.num_tokens if self.before else 0)

    @property
    def num_bytes(self) -> int:
        """Memory that the tensors take."""
        return self.keys.nbytes + self.values.nbytes + (self.before.num_bytes if self.before else 0)

    def whole(self) -> tuple[Tensor, Tensor]:
        """Keys and values of all tokens of every row; a copy for every row where they have a part in common."""
        if self.before is None:
            return self.keys, self.values
        rows = self.keys.shape[0]
        keys, values = (each.expand(rows, -1, -1, -1) for each in self.before.whole())
        return torch.cat((keys, self.keys), dim=2), torch.cat((values, self.values), dim=2)

    def extended(self, keys: Tensor, values: Tensor) -> KVState:
        """With the keys and values of further tokens."""
        if self.keys.shape[2]:
            keys, values = torch.cat((self.keys, keys), dim=2), torch.cat((self.values, values), dim=2)
        return KVState(keys=keys, values=values, before=self.before)

    def truncated(self, num_tokens: int) -> KVState:
        """The first `num_tokens` tokens."""
        keys, values = self.whole()
        return KVState(keys=keys[:, :, :num_tokens], values=values[:, :, :num_tokens])

    def expanded(self, num_rows: int) -> KVState:
        """One row, seen as many."""
        keys, values = self.whole()
        nothing = keys[:, :, :0].expand(num_rows, -1, -1, -1)
        return KVState(keys=nothing, values=nothing, before=KVState(keys=keys, values=values))

    def rows(self, chosen: Tensor) -> KVState:
        """The rows `chosen` (N,), in that order, some perhaps several times."""
        return KVState(keys=self.keys[chosen], values=self.values[chosen], before=self.before)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelState:
    """The state of all layers, and what is known of the tokens in it."""

    layers: tuple[KVState, ...]
    meta: TokenMeta

    @property
    def num_tokens(self) -> int:
        """Tokens so far, in every row."""
        return self.meta.positions.shape[1]

    @property
    def num_bytes(self) -> int:
        """Memory of all layers."""
        return sum(layer.num_bytes for layer in self.layers)

    def truncated(self, num_tokens: int) -> ModelState:
        """The first `num_tokens` tokens of every row."""
        meta = self.meta
        return ModelState(
            layers=tuple(layer.truncated(num_tokens) for layer in self.layers),
            meta=TokenMeta(
                positions=meta.positions[:, :num_tokens],
                segments=meta.segments[:, :num_tokens],
                files=meta.files[:, :num_tokens],
                relations=meta.relations,
            ),
        )

    def expanded(self, num_rows: int) -> ModelState:
        """One row as many, for continuations that share a prefix."""
        meta = self.meta
        return ModelState(
            layers=tuple(layer.expanded(num_rows) for layer in self.layers),
            meta=TokenMeta(
                positions=meta.positions.expand(num_rows, -1),
                segments=meta.segments.expand(num_rows, -1),
                files=meta.files.expand(num_rows, -1),
                relations=meta.relations.expand(num_rows, -1, -1),
            ),
        )


def joined(before: TokenMeta, after: TokenMeta) -> TokenMeta:
    """The record of all tokens; the relations are the later ones, which know every file so far."""
    if after.num_files < before.num_files:
        raise ValueError(f"the files of a row may only grow: {before.num_files} before, {after.num_files} now")
    return TokenMeta(
        positions=torch.cat((before.positions, after.positions), dim=1),
        segments=torch.cat((before.segments, after.segments), dim=1),
        files=torch.cat((before.files, after.files), dim=1),
        relations=after.relations,
    )

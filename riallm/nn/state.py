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
    """Keys and values (B, G, S, K) of one layer. Extending gives a new value, so a fork costs nothing."""

    keys: Tensor
    values: Tensor

    @property
    def num_tokens(self) -> int:
        """S."""
        return self.keys.shape[2]

    @property
    def num_bytes(self) -> int:
        """Memory that the tensors take."""
        return self.keys.nbytes + self.values.nbytes

    def extended(self, keys: Tensor, values: Tensor) -> KVState:
        """With the keys and values of further tokens."""
        if self.num_tokens == 0:
            return KVState(keys=keys, values=values)
        return KVState(keys=torch.cat((self.keys, keys), dim=2), values=torch.cat((self.values, values), dim=2))

    def truncated(self, num_tokens: int) -> KVState:
        """The first `num_tokens` tokens."""
        return KVState(keys=self.keys[:, :, :num_tokens], values=self.values[:, :, :num_tokens])

    def expanded(self, num_rows: int) -> KVState:
        """One row, seen as many: memory is shared until the rows are extended."""
        return KVState(keys=self.keys.expand(num_rows, -1, -1, -1), values=self.values.expand(num_rows, -1, -1, -1))


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

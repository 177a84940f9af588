"""What a model carries from one call to the next: explicit values, passed in and given back, never module buffers.

A state is opened for a forward call (`State.begin`); the pass that this gives lets every layer attend to what the state
holds and to the call's own tokens, and in the end gives the state behind them. Here are the pass without a state, which
training uses, and the state with one stretch of keys and values a row; `paged` has the engine's.

Letters: B rows, T query tokens, H heads, G key-value heads, S tokens so far, K head size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from riallm.nn.attention import BLOCK, Mask, Ranges, attend, attend_few, file_terms, in_blocks, visible
from riallm.nn.meta import TokenMeta

FEW = 1 << 19
"""Scores of a row and head up to which a call with a state holds them in memory, and is quicker for it."""


class Pass(Protocol):
    """One forward call, as its attention layers see it."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, alpha: Tensor | None) -> Tensor:
        """(B, H, T, K) from q (B, H, T, K), k and v (B, G, T, K) of the call's tokens, turned by their positions.

        alpha: the layer's learned terms (H, 3) for relations between files. Once a layer, in any order of layers.
        """
        ...

    def after(self) -> State | None:
        """The state behind the call's tokens, once every layer has attended; None where none was given."""
        ...


class State(Protocol):
    """What a model carries from one call to the next, whatever its kind."""

    def begin(self, meta: TokenMeta, ranges: Ranges | None) -> Pass:
        """A pass over tokens that follow those in the state."""
        ...


class Alone:
    """A pass that nothing stands before and that leaves nothing behind: training, and texts read in one go."""

    def __init__(self, meta: TokenMeta, ranges: Ranges | None) -> None:
        self.meta = meta
        seen = visible(meta, meta, ranges)
        blocks = seen.is_cuda and torch.compiler.is_compiling() and seen.shape[-1] % BLOCK == 0
        self.mask: Mask = in_blocks(seen) if blocks else seen

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, alpha: Tensor | None) -> Tensor:
        """See `Pass.attend`."""
        return attend(q, k, v, mask=self.mask, terms=_terms(alpha, self.meta), query=self.meta, key=self.meta)

    def after(self) -> None:
        """See `Pass.after`."""


def _terms(alpha: Tensor | None, meta: TokenMeta) -> Tensor | None:
    # With one file all scores of a row would get the same number, which softmax takes off again.
    return None if alpha is None or meta.num_files == 1 else file_terms(alpha, meta.relations)


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
    """Keys and values of all layers in one stretch a row, and what is known of the tokens in it."""

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

    def begin(self, meta: TokenMeta, ranges: Ranges | None) -> Behind:
        """See `State.begin`."""
        return Behind(self, meta, ranges)

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


class Behind:
    """A pass behind a `ModelState`."""

    def __init__(self, state: ModelState, meta: TokenMeta, ranges: Ranges | None) -> None:
        self.meta, self.key_meta = meta, joined(state.meta, meta)
        self.mask = visible(meta, self.key_meta, ranges)
        self.layers = list(state.layers)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, alpha: Tensor | None) -> Tensor:
        """See `Pass.attend`."""
        self.layers[layer] = self.layers[layer].extended(k, v)
        keys, values = self.layers[layer].whole()
        quick = attend_few if q.shape[2] * keys.shape[2] <= FEW else attend
        terms = _terms(alpha, self.meta)
        return quick(q, keys, values, mask=self.mask, terms=terms, query=self.meta, key=self.key_meta)

    def after(self) -> ModelState:
        """See `Pass.after`."""
        return ModelState(layers=tuple(self.layers), meta=self.key_meta)


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

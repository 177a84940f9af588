"""Conversations with memories that are decoded side by side, each as far as it is: rows that join and leave.

Every row ends in the last column, so that there are never more columns than the longest row has tokens.
Letters: B rows, G key-value heads, S columns, K head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from riallm.nn.cross_attention import KeysValues
from riallm.nn.memory_state import MemoryState, Reading, TurnState
from riallm.nn.meta import PADDING, TokenMeta
from riallm.nn.state import KVState, ModelState


def prompts(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, TokenMeta]:
    """tokens (B, S) of prompts, shorter ones filled up before theirs, and their record."""
    longest = max(map(len, rows))
    tokens = torch.tensor([[*[0] * (longest - len(row)), *row] for row in rows], device=device)
    before = longest - torch.tensor([len(row) for row in rows], device=device)
    places = torch.arange(longest, device=device)[None] - before[:, None]
    meta = TokenMeta.padded(places >= 0)
    return tokens, replace(meta, positions=places.clamp(min=0))


def stacked(memories: Sequence[MemoryState]) -> MemoryState:
    """Memories of one conversation each as one of several, of version 0: each may be another."""
    return replace(memories[0], slots=torch.cat([each.slots for each in memories], dim=1), version=0)


def joined(first: TurnState, second: TurnState) -> TurnState:
    """All rows of both, those of the first before the others."""
    a, b = tokens_of(first), tokens_of(second)
    longest = max(a.num_tokens, b.num_tokens)
    a, b = _widened(a, longest), _widened(b, longest)
    layers = tuple(
        KVState(keys=torch.cat((one.keys, other.keys)), values=torch.cat((one.values, other.values)))
        for one, other in zip(a.layers, b.layers, strict=True)
    )
    readings = zip(first.reading.layers, second.reading.layers, strict=True)
    reading = Reading(layers=tuple(_both(one, other) for one, other in readings))
    return TurnState(memory=None, reading=reading, tokens=ModelState(layers=layers, meta=_both_metas(a.meta, b.meta)))


def left(state: TurnState, rows: Sequence[int], longest: int) -> TurnState:
    """The rows that go on, of which the longest has so many tokens."""
    tokens = tokens_of(state)
    chosen = torch.tensor(rows, device=tokens.meta.positions.device)
    first = tokens.num_tokens - longest
    layers = tuple(
        KVState(keys=layer.keys[chosen][:, :, first:], values=layer.values[chosen][:, :, first:])
        for layer in tokens.layers
    )
    meta = TokenMeta(
        positions=tokens.meta.positions[chosen][:, first:],
        segments=tokens.meta.segments[chosen][:, first:],
        files=tokens.meta.files[chosen][:, first:],
        relations=tokens.meta.relations[chosen],
    )
    reading = Reading(
        layers=tuple(
            None if each is None else KeysValues(each.keys[chosen], each.values[chosen])
            for each in state.reading.layers
        )
    )
    return TurnState(memory=None, reading=reading, tokens=ModelState(layers=layers, meta=meta))


def tokens_of(state: TurnState) -> ModelState:
    """The tokens of a state that keeps them."""
    assert state.tokens is not None
    return state.tokens


def _widened(state: ModelState, longest: int) -> ModelState:
    """The rows with padding before them."""
    missing = longest - state.num_tokens
    if missing == 0:
        return state
    layers = tuple(
        KVState(keys=F.pad(layer.keys, (0, 0, missing, 0)), values=F.pad(layer.values, (0, 0, missing, 0)))
        for layer in state.layers
    )
    meta = replace(
        state.meta,
        positions=F.pad(state.meta.positions, (missing, 0)),
        segments=F.pad(state.meta.segments, (missing, 0), value=PADDING),
        files=F.pad(state.meta.files, (missing, 0)),
    )
    return ModelState(layers=layers, meta=meta)


def _both(first: KeysValues | None, second: KeysValues | None) -> KeysValues | None:
    if first is None or second is None:
        return None
    return KeysValues(torch.cat((first.keys, second.keys)), torch.cat((first.values, second.values)))


def _both_metas(first: TokenMeta, second: TokenMeta) -> TokenMeta:
    return TokenMeta(
        positions=torch.cat((first.positions, second.positions)),
        segments=torch.cat((first.segments, second.segments)),
        files=torch.cat((first.files, second.files)),
        relations=torch.cat((first.relations, second.relations)),
    )

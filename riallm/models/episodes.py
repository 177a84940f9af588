"""Conversations whose tokens are all known: side by side, ragged where they end, written and decoded at once.

Letters: B conversations, N interactions, T tokens, L layers, D hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from riallm.core.errors import UsageError
from riallm.models.rxt import RxT
from riallm.nn.cross_attention import KeysValues
from riallm.nn.memory_state import MemoryState, Reading
from riallm.nn.meta import TokenMeta
from riallm.nn.moe import Routing


class Interaction(NamedTuple):
    """ids with their markers; the answer begins at `answer_at`."""

    ids: Sequence[int]
    answer_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Episodes:
    """tokens (B, N, T); mask (B, N, T): those that are no padding; answers (B, N, T): those of an answer, its end
    included; num_bytes: of text that the answers stand for; seed: of what an objective draws, and of a memory's start
    that is drawn. An interaction that a shorter conversation lacks has no tokens."""

    tokens: Tensor
    mask: Tensor
    answers: Tensor
    num_bytes: float = 0.0
    seed: int = 0

    @property
    def num_tokens(self) -> int:
        """Positions that are computed, padding included."""
        return self.tokens.numel()

    @property
    def num_units(self) -> float:
        """Tokens of answers."""
        return float(self.answers.sum())

    @property
    def context(self) -> int:
        """T."""
        return self.tokens.shape[-1]

    def to(self, device: torch.device | str) -> Episodes:
        """The batch on another device."""
        tokens, mask, answers = (each.to(device) for each in (self.tokens, self.mask, self.answers))
        return replace(self, tokens=tokens, mask=mask, answers=answers)


def episodes(conversations: Sequence[Sequence[Interaction]], *, num_tokens: int, pad: int = 0) -> Episodes:
    """Side by side. Raises UsageError for an interaction longer than `num_tokens`: cut off, it loses its answer."""
    shape = (len(conversations), max(map(len, conversations)), num_tokens)
    tokens = torch.full(shape, pad)
    mask, answers = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    for row, conversation in enumerate(conversations):
        for at, one in enumerate(conversation):
            num = len(one.ids)
            if num > num_tokens:
                raise UsageError(f"an interaction of {num} tokens; rows have {num_tokens}")
            tokens[row, at, :num] = torch.tensor(one.ids)
            mask[row, at, :num] = True
            answers[row, at, one.answer_at : num] = True
    return Episodes(tokens=tokens, mask=mask, answers=answers)


def written(model: RxT, tokens: Tensor, mask: Tensor, *, window: int | None = None, seed: int = 0) -> list[MemoryState]:
    """The memory before each interaction, and behind the last: N + 1 states of B rows. window: as `MemoryAware.window`;
    seed: of a start that is drawn.

    The encoder does not see the memory, so all interactions go through it at once, and only the writes one by one.
    """
    rows, num, length = tokens.shape
    encoded = model.encode(tokens.flatten(0, 1), mask.flatten(0, 1))
    encoded = encoded.view(len(encoded), rows, num, length, -1)
    memory = model.start(rows, seed=seed)  # behind `encode`, which gathers sharded weights
    memories = [memory]
    for at in range(num):
        if window is not None and at and at % window == 0:
            memory = memory.detached()
        memory = model.write(encoded[:, :, at], mask[:, at], memory)
        memories.append(memory)
    return memories


def decoded(
    model: RxT, tokens: Tensor, mask: Tensor, memories: Sequence[MemoryState], *, read: bool = True
) -> tuple[Tensor, tuple[Routing, ...]]:
    """hidden (B, N, T, D) of every interaction with the memory before it, all at once, since the tokens are given; and
    what the experts tell. read: False has the decoder look at no memory, as a control."""
    rows, num, length = tokens.shape
    slots = torch.stack([memory.slots for memory in memories], dim=2).flatten(1, 2)
    memory = replace(memories[0], slots=slots)
    reading = model.reading(memory) if read else Reading(layers=(None,) * model.config.num_layers)
    state = model.open_turn(memory, reading, keep=False)
    out = model(tokens.flatten(0, 1), TokenMeta.padded(mask.flatten(0, 1)), state)
    return out.hidden.view(rows, num, length, -1), out.routing


def overheard(model: RxT, tokens: Tensor, mask: Tensor, *, seed: int = 0) -> tuple[Tensor, tuple[Routing, ...]]:
    """hidden (B, N, T, D) of a decoder that has, in the memory's place, the slots of a new conversation and what the
    encoder makes of all tokens of the interactions before: what a memory with room for everything would hold. Without
    those slots, what is found in one fact alone could not be told from what is not found. seed: of slots that are
    drawn."""
    rows, num, length = tokens.shape
    encoded = model.encode(tokens.flatten(0, 1), mask.flatten(0, 1))
    encoded = encoded.view(len(encoded), rows, num * length, -1)
    start = model.start(rows, seed=seed)
    reading = model.reading(replace(start, slots=torch.cat((start.slots, encoded), dim=2)))
    order = torch.arange(num, device=tokens.device).repeat_interleave(length)
    before = torch.arange(num, device=tokens.device)[:, None] > order
    heard = (before & mask.flatten(1)[:, None]).flatten(0, 1)
    heard = torch.cat((heard.new_ones(len(heard), model.config.num_slots), heard), dim=1)
    layers = [at and KeysValues(*(each.repeat_interleave(num, dim=0) for each in at)) for at in reading.layers]
    state = model.open_turn(model.start(rows * num), Reading(layers=tuple(layers), mask=heard), keep=False)
    out = model(tokens.flatten(0, 1), TokenMeta.padded(mask.flatten(0, 1)), state)
    return out.hidden.view(rows, num, length, -1), out.routing


def reread(model: RxT, tokens: Tensor, mask: Tensor) -> tuple[Tensor, tuple[Routing, ...]]:
    """hidden (B, N, T, D) of a decoder that looks at no memory and reads all interactions as one text instead."""
    flat = mask.flatten(1)
    meta = TokenMeta.padded(flat)
    meta = replace(meta, positions=(flat.cumsum(dim=1) - 1).clamp(min=0))
    memory = model.start(len(tokens))
    nothing = Reading(layers=(None,) * model.config.num_layers)
    out = model(tokens.flatten(1), meta, model.open_turn(memory, nothing, keep=False))
    return out.hidden.view(*tokens.shape, -1), out.routing

"""Roll-outs: conversations in which the model answers some interactions itself and remembers what it said.

A roll-out is a function of weights, conversations and seed alone. Letters: B conversations, G samples of each, R =
B * G (the samples of a conversation stand behind each other), N interactions, T tokens, Q interactions.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from riallm.engine.request import Sampling
from riallm.engine.turn import Turn
from riallm.models.episodes import Episodes, Interaction, episodes
from riallm.models.rxt import RxT
from riallm.nn.memory_state import MemoryState
from riallm.train.answers import picked


class Lived(NamedTuple):
    """episodes: R conversations as they went; memories: N of R rows, before each interaction, without gradient."""

    episodes: Episodes
    memories: list[MemoryState]


def answered_by(model: RxT, memory: MemoryState, asked: Episodes, *, end: int, seed: int) -> Episodes:
    """The interactions (Q, 1, T) with the model's own answers in the place of theirs, drawn as the model has their
    odds, all rows at once. An answer without `end` is cut off where its row ends."""
    starts = asked.answers[:, 0].int().argmax(dim=-1).tolist()
    rows = [ids[:start] for ids, start in zip(asked.tokens[:, 0].tolist(), starts, strict=True)]
    limits = [asked.context] * len(rows)
    turn = Turn(model, memory, rows, Sampling(seed=seed), limits=limits, ends=(end,))
    while turn.step() is not None:
        pass
    said = [[Interaction(ids, start)] for ids, start in zip(turn.rows, starts, strict=True)]
    return episodes(said, num_tokens=asked.context).to(asked.tokens.device)


@torch.no_grad()
def live(model: RxT, given: Episodes, asked: Tensor, *, samples: int, end: int, seed: int) -> Lived:
    """Each of the B conversations `samples` times: interactions that are not `asked` (B, N) as they are given, the
    others answered by the model; all are written into its memory, which is that of a new conversation at first. seed:
    of the answers, and of a start that is drawn."""
    parts = (given.tokens, given.mask, given.answers, asked)
    tokens, mask, answers, places = (each.repeat_interleave(samples, dim=0) for each in parts)
    memory = model.start(len(tokens), seed=seed)
    memories = []
    for at in range(tokens.shape[1]):
        memories.append(memory)
        rows = places[:, at].nonzero()[:, 0]
        if len(rows):
            now = Episodes(tokens=tokens[:, at : at + 1], mask=mask[:, at : at + 1], answers=answers[:, at : at + 1])
            asks = picked(now, places[:, at : at + 1])
            said = answered_by(model, memory.rows(rows), asks, end=end, seed=mixed(seed, at))
            tokens[rows, at], mask[rows, at], answers[rows, at] = (
                each[:, 0] for each in (said.tokens, said.mask, said.answers)
            )
        memory = model.write(model.encode(tokens[:, at], mask[:, at]), mask[:, at], memory)
    return Lived(Episodes(tokens=tokens, mask=mask, answers=answers), memories)


def mixed(seed: int, *places: int | str) -> int:
    """A seed for a part of what `seed` stands for; rows add their number to it."""
    return random.Random(":".join(map(str, (seed, *places)))).getrandbits(48)


def others(memory: Sequence[MemoryState], samples: int) -> list[MemoryState]:
    """The memories of the conversation before each one in the batch, sample by sample."""
    order = torch.arange(memory[0].num_rows, device=memory[0].slots.device).roll(samples)
    return [each.rows(order) for each in memory]

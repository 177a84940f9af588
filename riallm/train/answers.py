"""What a model with a memory thinks of answers: their log-probabilities, read with the memory from before them.

Letters: B conversations, N interactions, T tokens, Q interactions that were picked, n tokens of their answers.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from riallm.models.episodes import Episodes, decoded
from riallm.models.reward import RewardModel
from riallm.models.rxt import RxT
from riallm.nn.memory_state import MemoryState
from riallm.nn.moe import Routing


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """log_probs and entropies (n,): of the answers' tokens, end included, in the order of the rows; rows (n,): which of
    the Q rows each belongs to; routings: what the experts tell."""

    log_probs: Tensor
    entropies: Tensor
    rows: Tensor
    routings: tuple[Routing, ...]

    def summed(self, num_rows: int) -> Tensor:
        """(Q,): the log-probability of each whole answer."""
        return self.log_probs.new_zeros(num_rows).index_add(0, self.rows, self.log_probs)


def picked(data: Episodes, places: Tensor) -> Episodes:
    """The interactions at `places` (B, N) as conversations of their own: (Q, 1, T), row by row."""
    tokens, mask, answers = (each[places][:, None] for each in (data.tokens, data.mask, data.answers))
    return Episodes(tokens=tokens, mask=mask, answers=answers)


def before(memories: Sequence[MemoryState], places: Tensor) -> MemoryState:
    """The memories (N of B rows) from before the interactions at `places` (B, N), as one of Q rows."""
    slots = torch.stack([memory.slots for memory in memories[: places.shape[1]]], dim=2)
    return replace(memories[0], slots=slots[:, places])


def scored(model: RxT, memory: MemoryState, said: Episodes) -> Scored:
    """Answers (Q, 1, T), each with its row of the memory."""
    hidden, routings = decoded(model, said.tokens, said.mask, [memory])
    counted = said.answers.roll(-1, dims=-1)  # an answer never begins an interaction, so nothing comes round
    log_probs = model.logits(hidden[counted]).log_softmax(dim=-1)
    chosen = log_probs.gather(-1, said.tokens[said.answers][:, None])[:, 0]
    entropies = -(log_probs.exp() * log_probs).sum(dim=-1)
    rows = said.answers.nonzero()[:, 0]
    return Scored(log_probs=chosen, entropies=entropies, rows=rows, routings=routings)


def judged(model: RewardModel, memory: MemoryState, said: Episodes) -> tuple[Tensor, tuple[Routing, ...]]:
    """(Q,): what the model thinks of answers (Q, 1, T), at their last token, each with its row of the memory."""
    hidden, routings = decoded(model, said.tokens, said.mask, [memory])
    last = said.mask[:, 0].sum(dim=-1) - 1
    rows = torch.arange(len(last), device=last.device)
    return model.rewards(hidden[rows, 0, last]), routings


def frozen(model: RxT) -> RxT:
    """A copy that no training changes, for a reference. What it remembers is written by its own weights: memories are
    values, and `models.episodes.written` gives it those of the same conversations."""
    return copy.deepcopy(model).requires_grad_(False).eval()

"""What an answer is worth: whether the fact that was asked for is in it, or what a reward model thinks of it.

No reward looks at how alike an answer is to earlier text: who repeats the memory would be paid without answering.
Letters: R conversations, N interactions, T tokens, Q answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from riallm.models.episodes import Episodes, written
from riallm.models.reward import RewardModel
from riallm.train.answers import before, judged
from riallm.train.rollout import mixed


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a reward looks at. lived: R conversations as they went; places (R, N): the interactions that were asked;
    said and right (Q, 1, T): what was answered there and what should have been; facts (Q, T): as `Quiz.facts`; seed: of
    the quiz."""

    lived: Episodes
    places: Tensor
    said: Episodes
    right: Episodes
    seed: int
    facts: Tensor | None = None


Reward = Callable[[Said], Tensor]
"""A number for every answer, (Q,)."""


def exact(said: Said) -> Tensor:
    """1 where the whole answer is the right one, its end included, else 0."""
    ours, theirs = said.said, said.right
    alike = (ours.tokens == theirs.tokens) | ~theirs.mask
    found = (alike.all(dim=-1) & (ours.mask == theirs.mask).all(dim=-1))[:, 0]
    return found.float()


def mentioned(said: Said) -> Tensor:
    """1 where the fact stands in the answer, its tokens in a row, however the rest of it goes; where a question has no
    fact, as `exact`. An answer that lists many values is right too: where answers have one form, take `exact`."""
    found = exact(said)
    if said.facts is None:
        return found
    for row, fact in enumerate(said.facts):
        wanted = said.right.tokens[row, 0, fact].tolist()
        ours = said.said.tokens[row, 0, said.said.answers[row, 0]].tolist()
        if wanted:
            starts = range(len(ours) - len(wanted) + 1)
            found[row] = float(any(ours[at : at + len(wanted)] == wanted for at in starts))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Shuffled:
    """A control: the numbers of another reward, dealt out anew among all answers of the batch."""

    of: Reward = exact

    def __call__(self, said: Said) -> Tensor:
        """(Q,)."""
        found = self.of(said)
        draw = torch.Generator().manual_seed(mixed(said.seed, "shuffled"))
        return found[torch.randperm(len(found), generator=draw).to(found.device)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """A reward for `reinforce` by a reward model, which remembers the conversation as it went, each answer judged
    before it is written."""

    model: RewardModel

    @torch.no_grad()
    def __call__(self, said: Said) -> Tensor:
        """(Q,)."""
        memories = written(self.model, said.lived.tokens, said.lived.mask, seed=said.seed)[:-1]
        return judged(self.model, before(memories, said.places), said.said)[0]

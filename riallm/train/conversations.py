"""Conversations in English as batches. A batch is a function of its number, so a run that goes on sees what it would
have seen.

Letters: B conversations, N interactions, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import NamedTuple

import torch
from torch import Tensor

from riallm.core.errors import UsageError
from riallm.data.conversations.conversation import ConversationConfig, Turn, conversation
from riallm.data.conversations.tokens import interaction
from riallm.models.episodes import Episodes, Interaction, episodes
from riallm.tokenizer.hybrid import HybridTokenizer
from riallm.train.feed import Feed

MAX_TOKENS = 32
"""Of an interaction with the tokenizer of `data.conversations.tokens`, markers included; a test counts them."""


class Batch(NamedTuple):
    """turns: B conversations of up to N; episodes: the same as tokens; values (B, N, T): the tokens of answers that are
    the value asked for."""

    turns: list[list[Turn]]
    episodes: Episodes
    values: Tensor


def batch(
    config: ConversationConfig, tokenizer: HybridTokenizer, *, first: int, rows: int, num_tokens: int = MAX_TOKENS
) -> Batch:
    """Conversations `first` to `first + rows`, as wide as the longest interaction. Raises UsageError for one of more
    than `num_tokens`."""
    turns = [conversation(config, number) for number in range(first, first + rows)]
    told = [[interaction(tokenizer, turn) for turn in each] for each in turns]
    longest = max(len(one.ids) for each in told for one in each)
    said = [[Interaction(one.ids, one.answer_at) for one in each] for each in told]
    made = episodes(said, num_tokens=min(longest, num_tokens))
    values = torch.zeros_like(made.mask)
    for row, each in enumerate(told):
        for at, one in enumerate(each):
            if one.value is not None:
                values[row, at, slice(*one.value)] = True
    num_bytes = sum(len(turn.answer.encode()) for each in turns for turn in each)
    return Batch(turns, replace(made, num_bytes=float(num_bytes), seed=first), values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """From the share `begin` of a stage on, conversations of a configuration."""

    begin: float = 0.0
    config: ConversationConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversations:
    """The `num` batches of phases, `rows` conversations each: batch n has those from n * rows on."""

    phases: tuple[Phase, ...]
    num: int
    tokenizer: HybridTokenizer
    rows: int
    num_tokens: int = MAX_TOKENS

    def __post_init__(self) -> None:
        begins = [phase.begin for phase in self.phases]
        if begins[:1] != [0.0] or sorted(set(begins)) != begins or begins[-1] >= 1.0:
            raise UsageError(f"phases begin at {begins}; expected 0 first, and each later than the one before, below 1")

    def __call__(self, number: int, elapsed: float = 0.0) -> Episodes:
        """The batch of a number. elapsed: share of the stage that is over, of which a clock may say more than the
        number does."""
        return self.of_phase(self.phase(number, elapsed), number)

    def phase(self, number: int, elapsed: float = 0.0) -> int:
        """Which phase a batch is of."""
        share = max(number / self.num, elapsed)
        return sum(phase.begin <= share for phase in self.phases) - 1

    def of_phase(self, phase: int, number: int) -> Episodes:
        """The batch of a number, made as the phase has it."""
        config, first = self.phases[phase].config, number * self.rows
        return batch(config, self.tokenizer, first=first, rows=self.rows, num_tokens=self.num_tokens).episodes


class ConversationFeed:
    """The batches of conversations on a device, made ahead by other processes. Only the run knows when its next phase
    begins, so each phase has a `Feed` of its own, and what was made ahead for the one before is dropped. makers: as
    `Feed` has them."""

    def __init__(self, source: Conversations, *, device: str, makers: int | None = None) -> None:
        self.source, self.device, self.makers = source, device, makers
        self._phase = -1
        self._feed: Feed[Episodes] | None = None

    def __enter__(self) -> ConversationFeed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, number: int, elapsed: float = 0.0) -> Episodes:
        """As `Conversations`; numbers should be asked for in order."""
        phase = self.source.phase(number, elapsed)
        if self._feed is None or phase != self._phase:
            self.close()
            made = partial(self.source.of_phase, phase)
            self._phase, self._feed = phase, Feed(made, device=self.device, makers=self.makers)
        return self._feed(number)

    def close(self) -> None:
        """End the processes; batches made ahead are dropped."""
        if self._feed is not None:
            self._feed.close()
        self._feed = None

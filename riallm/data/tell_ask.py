"""Conversations whose answers stand in earlier interactions alone: the task that shows what a memory carries.

Keys and values are drawn anew for every conversation, so weights cannot know them, and a model sees one interaction at
a time. The tokens are numbers of their own; there is no text. A conversation tells facts ("k is v": ok), tells some
anew ("k is w", the last one counts), asks for them, asks for what was never told (none), and chats.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from riallm.core.errors import UsageError

Kind = Literal["tell", "retell", "ask", "untold", "chat"]

PAD, BEGIN, QUERY, ANSWER, END, IS, ASKED, OK, NONE = range(9)
NUM_SPECIAL = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One interaction: query and answer as ids, both without the markers that stand around them. Of an ask: distance,
    interactions from the (last) tell to it, 1 for the next one; live, facts that were told and are not overwritten;
    stale, the value that was overwritten last, None where none was; key, the number of the key."""

    kind: Kind
    query: tuple[int, ...]
    answer: tuple[int, ...]
    distance: int = 0
    live: int = 0
    stale: int | None = None
    key: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TellAskConfig:
    """num_turns: interactions of a conversation, drawn evenly from `min_turns` to it. tell, retell, ask, untold, chat:
    how often each kind comes where it can. max_live: facts at a time, after which nothing new is told. opening:
    interactions at the beginning that all tell something new."""

    num_turns: int
    min_turns: int | None = None
    num_keys: int = 64
    num_values: int = 64
    num_fillers: int = 24
    tell: float = 0.35
    retell: float = 0.08
    ask: float = 0.42
    untold: float = 0.05
    chat: float = 0.10
    max_live: int = 8
    opening: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= (self.min_turns or self.num_turns) <= self.num_turns:
            raise UsageError(f"a conversation has at least 2 and at most num_turns ({self.num_turns}) interactions")
        if not 0 < self.max_live < self.num_keys:
            raise UsageError(f"max_live is {self.max_live}; expected 1 to {self.num_keys - 1}, fewer than the keys")
        if not 0 < self.opening <= self.max_live:
            raise UsageError(f"opening is {self.opening}; expected 1 to max_live, {self.max_live}")

    @property
    def vocab_size(self) -> int:
        """Markers, then keys, values, fillers."""
        return NUM_SPECIAL + self.num_keys + self.num_values + self.num_fillers

    @property
    def max_tokens(self) -> int:
        """Of the longest interaction, markers included."""
        return 10

    @property
    def first_value(self) -> int:
        """The id of value 0."""
        return NUM_SPECIAL + self.num_keys


def conversation(config: TellAskConfig, number: int) -> list[Turn]:
    """The conversation of a number; a function of number and seed alone."""
    draw = random.Random(f"{config.seed}:tell-ask:{number}")
    told: dict[int, tuple[int, int, int | None]] = {}  # key -> value, when it was told, the value before
    turns: list[Turn] = []
    for at in range(draw.randint(config.min_turns or config.num_turns, config.num_turns)):
        turns.append(_turn(config, draw, told, at))
    return turns


def _turn(config: TellAskConfig, draw: random.Random, told: dict[int, tuple[int, int, int | None]], at: int) -> Turn:
    shares: dict[Kind, float] = {"chat": config.chat, "untold": config.untold}
    if len(told) < config.max_live:
        shares["tell"] = config.tell
    if told:
        shares |= {"retell": config.retell, "ask": config.ask}
    if at < config.opening:
        shares = {"tell": 1.0}
    kind = draw.choices(list(shares), list(shares.values()))[0]
    if kind == "chat":
        first = config.first_value + config.num_values
        said = tuple(first + draw.randrange(config.num_fillers) for _ in range(draw.randint(2, 4)))
        return Turn(kind=kind, query=said, answer=(OK,))
    if kind in ("tell", "untold"):
        key = draw.choice([key for key in range(config.num_keys) if key not in told])
    else:
        key = draw.choice(list(told))
    name = NUM_SPECIAL + key
    if kind == "untold":
        return Turn(kind=kind, query=(name, ASKED), answer=(NONE,), live=len(told), key=key)
    if kind == "ask":
        value, when, stale = told[key]
        answer = (config.first_value + value,)
        return Turn(
            kind=kind, query=(name, ASKED), answer=answer, distance=at - when, live=len(told), stale=stale, key=key
        )
    before = told[key][0] if key in told else None
    value = draw.choice([value for value in range(config.num_values) if value != before])
    told[key] = (value, at, None if before is None else config.first_value + before)
    return Turn(kind=kind, query=(name, IS, config.first_value + value), answer=(OK,), live=len(told), key=key)


def interaction(turn: Turn) -> tuple[list[int], int]:
    """(ids with their markers, number of ids that come before the answer)."""
    given = [BEGIN, QUERY, *turn.query, ANSWER]
    return [*given, *turn.answer, END], len(given)

"""What a memory carries, asked in English: every conversation is held with the model as somebody would hold it, and the
questions in it are asked again with what the controls have in the memory's place.

The way is the whole one: text becomes tokens, the likeliest tokens are decoded with the memory, become text again, and
the interaction with the model's own answer is written. Counted is the value that the answer gives, which has to be the
right one to the last character; whatever else the answer says does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol, TypeVar

from riallm.data.conversations.conversation import ConversationConfig, Fact, Turn, conversation
from riallm.data.conversations.frames import said, says_not_told
from riallm.data.conversations.relations import RELATIONS
from riallm.eval.probes.counted import Asked, check

M = TypeVar("M")
"""The memories of several conversations, side by side."""


class Reply(NamedTuple):
    """An answer as text; ids: the whole interaction as tokens, for a talker that has tokens."""

    query: str
    text: str
    ids: Sequence[int] = ()


class Talker(Protocol[M]):
    """A model with a memory, as text."""

    def start(self, rows: int, *, seed: int) -> M:
        """Memories of so many new conversations; seed: of what is drawn for them."""

    def chosen(self, memory: M, rows: Sequence[int]) -> M:
        """Those of the conversations `rows`, in that order."""

    def answer(self, queries: Sequence[str], memory: M, *, read: bool = True) -> list[Reply]:
        """The likeliest answer to a query of each conversation. read: False looks at no memory."""

    def nats(self, turns: Sequence[Turn], memory: M, *, read: bool = True) -> list[float] | None:
        """Of the right value in the right answer to a question of each conversation, all of its tokens together; None
        from a talker that has no probabilities. read: as `answer` has it."""

    def write(self, replies: Sequence[Reply], memory: M) -> M:
        """The memories behind an interaction of each conversation."""


def ask(
    talker: Talker[M],
    config: ConversationConfig,
    *,
    num: int,
    rows: int = 64,
    hear: Callable[[int], None] = lambda num: None,
) -> list[Asked]:
    """At least `num` questions for what was told, and those for what never was among them, each under every condition;
    all conversations have `num_turns` interactions. rows: conversations side by side, of which one lends another its
    memory. hear: is told of how many questions were asked more."""
    check(num=num, rows=rows, ask=config.ask)
    config = replace(config, min_turns=None)
    found: list[Asked] = []
    first = questions = 0
    while questions < num:
        held = [conversation(config, number) for number in range(first, first + rows)]
        for each in _held(talker, held, first=first):
            found += each
            new = sum(one.told and one.condition == "memory" for one in each)
            questions += new
            hear(new)
        first += rows
    return found


def _held(talker: Talker[M], held: Sequence[Sequence[Turn]], *, first: int) -> Iterator[list[Asked]]:
    """The questions of one interaction of every conversation after the other. first: number of the first."""
    memory, know = talker.start(len(held), seed=first), [dict[Fact, str]() for _ in held]
    for at in range(len(held[0])):
        turns = [each[at] for each in held]
        replies = talker.answer([turn.query for turn in turns], memory)
        if rows := [row for row, turn in enumerate(turns) if turn.kind in ("ask", "untold")]:
            nobody = talker.start(len(rows), seed=first + 1)
            lent = [_lender(know, row, turns[row]) for row in rows]
            yield [
                each
                for condition, looks in (
                    ("memory", talker.chosen(memory, rows)),
                    ("reset", nobody),
                    ("swap", talker.chosen(memory, lent)),
                    ("unread", nobody),
                )
                for each in _asked(
                    talker,
                    [turns[row] for row in rows],
                    looks,
                    condition,
                    replies=[replies[row] for row in rows] if condition == "memory" else None,
                    told=[know[row] for row in lent],
                    conversations=[first + row for row in rows],
                )
            ]
        for knows, turn in zip(know, turns, strict=True):
            if turn.kind in ("tell", "retell"):
                assert turn.fact is not None and turn.value is not None
                knows[turn.fact] = turn.value
        memory = talker.write(replies, memory)


def _lender(know: Sequence[dict[Fact, str]], row: int, turn: Turn) -> int:
    """The conversation whose memory is swapped in: one that was told another value of what is asked, where there is
    one, so that it shows whose memory answers; else the neighbour."""
    others = [(row - step) % len(know) for step in range(1, len(know))]
    for other in others:
        told = None if turn.fact is None else know[other].get(turn.fact)
        if told is not None and told != turn.value:
            return other
    return others[0]


def _asked(
    talker: Talker[M],
    turns: Sequence[Turn],
    memory: M,
    condition: str,
    *,
    replies: Sequence[Reply] | None,
    told: Sequence[dict[Fact, str]],
    conversations: Sequence[int],
) -> list[Asked]:
    """Questions under one condition. replies: where they were given already; told: what the conversations were told
    whose memory is swapped in; conversations: their numbers."""
    read = condition != "unread"
    if replies is None:
        replies = talker.answer([turn.query for turn in turns], memory, read=read)
    valued = [at for at, turn in enumerate(turns) if turn.value is not None]
    nats: dict[int, float] = {}
    if valued:
        found = talker.nats([turns[at] for at in valued], talker.chosen(memory, valued), read=read)
        nats = dict(zip(valued, found or (), strict=found is not None))
    return [
        _judged(number, turn, reply.text, condition, knows if condition == "swap" else {}, nats.get(at))
        for at, (number, turn, reply, knows) in enumerate(zip(conversations, turns, replies, told, strict=True))
    ]


def _judged(number: int, turn: Turn, text: str, condition: str, told: dict[Fact, str], nats: float | None) -> Asked:
    assert turn.fact is not None
    value, none, donor = said(text), says_not_told(text), told.get(turn.fact)
    return Asked(
        conversation=number,
        condition=condition,
        distance=turn.distance,
        live=turn.live,
        retold=turn.stale is not None,
        right=none if turn.value is None else value == turn.value,
        stale=value is not None and value == turn.stale,
        none=none,
        donor=None if donor is None else value == donor,
        nats=nats,
        told=turn.value is not None,
        group=RELATIONS[turn.fact.relation].name,
    )

"""A conversation: facts are told, changed and asked for, and in between there is small talk.

What is told is of the user or of named people, so a relation alone need not tell whose fact is meant. Values are drawn
anew for every conversation and a model sees one interaction at a time, so weights cannot know them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import NamedTuple

from riallm.core.errors import UsageError
from riallm.data.conversations.frames import ANSWERS, NOT_TOLD, NOTED, Filled, Use, chat, fill, general, own
from riallm.data.conversations.relations import RELATIONS, Relation
from riallm.data.conversations.values import KINDS, SPLITS, Split, mixed, pool
from riallm.data.tell_ask import Kind

PEOPLE = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Ines", "Jack", "Laura", "Simon")


class Fact(NamedTuple):
    """What a value belongs to: the user (None) or a named person, and the place of a relation in RELATIONS."""

    subject: str | None
    relation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One interaction. fact: of all but small talk. value: that the query tells, or that its answer has to give; span:
    where it is in the answer, [begin, end) in characters, None where the answer gives none. Of an ask: distance,
    interactions from the (last) tell to it, 1 for the next one; live, facts that were told and are not overwritten;
    stale, the value that was overwritten last, None where none was."""

    kind: Kind
    query: str
    answer: str
    fact: Fact | None = None
    value: str | None = None
    span: tuple[int, int] | None = None
    distance: int = 0
    live: int = 0
    stale: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationConfig:
    """num_turns, min_turns, tell, retell, ask, untold, chat, max_live, opening: as `TellAskConfig` has them. split:
    which sentences and values. num_relations: the first ones of RELATIONS. people: named persons of a conversation, 0
    for facts of the user alone. others: how often a new fact is of one of them. rivals: how often a new fact, or one
    that is asked for and was never told, is of a relation that somebody else has told of, where that can be. own: how
    often a sentence is one that only this relation has."""

    num_turns: int
    min_turns: int | None = None
    split: Split = "train"
    num_relations: int = len(RELATIONS)
    people: int = 3
    others: float = 0.4
    rivals: float = 0.25
    own: float = 0.35
    mixed: float = 0.0
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
        if self.split not in SPLITS:
            raise UsageError(f"split is {self.split!r}; there are {', '.join(SPLITS)}")
        if not 0 < self.num_relations <= len(RELATIONS):
            raise UsageError(f"num_relations is {self.num_relations}; expected 1 to {len(RELATIONS)}")
        if not 0 <= self.people <= len(PEOPLE):
            raise UsageError(f"people is {self.people}; expected 0 to {len(PEOPLE)}")
        for name in ("others", "rivals", "own", "mixed"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UsageError(f"{name} is {getattr(self, name)}; expected a share, 0 to 1")
        if self.mixed and self.split != "train":
            raise UsageError(f"mixed is {self.mixed}; values are mixed in training, and split is {self.split!r}")
        if not 0 < self.max_live < self.num_facts:
            raise UsageError(
                f"max_live is {self.max_live}; expected 1 to {self.num_facts - 1}, fewer than there is to tell"
            )
        if not 0 < self.opening <= self.max_live:
            raise UsageError(f"opening is {self.opening}; expected 1 to max_live, {self.max_live}")

    @property
    def num_facts(self) -> int:
        """That can be told in a conversation."""
        return self.num_relations * (1 + self.people)


class _Told(NamedTuple):
    value: str
    when: int
    before: str | None


def conversation(config: ConversationConfig, number: int) -> list[Turn]:
    """The conversation of a number; a function of number, seed and the rest of the configuration alone."""
    draw = random.Random(f"{config.seed}:{config.split}:{number}")
    return _Drawn(config, draw).turns()


class _Drawn:
    """A conversation on its way."""

    def __init__(self, config: ConversationConfig, draw: random.Random) -> None:
        self.config, self.draw = config, draw
        self.people = draw.sample(PEOPLE, config.people)
        self.told: dict[Fact, _Told] = {}

    def turns(self) -> list[Turn]:
        config = self.config
        return [
            self._turn(at) for at in range(self.draw.randint(config.min_turns or config.num_turns, config.num_turns))
        ]

    def _turn(self, at: int) -> Turn:
        kind = self._kind(at)
        if kind == "chat":
            said, answer = self.draw.choice(chat(self.config.split))
            values = {name: self.draw.choice(pool(name, self.config.split)) for name in KINDS if f"{{{name}}}" in said}
            return Turn(kind=kind, query=said.format(**values), answer=answer)
        if kind == "untold":
            fact = self._new()
            answer = self._filled(NOT_TOLD, fact, answering=True).text
            return Turn(kind=kind, query=self._asks(fact), answer=answer, fact=fact, live=len(self.told))
        if kind == "ask":
            fact = self.draw.choice(list(self.told))
            value, when, stale = self.told[fact]
            answered = self._filled(self.draw.choice(ANSWERS), fact, answering=True, v=value)
            return Turn(
                kind=kind,
                query=self._asks(fact),
                answer=answered.text,
                fact=fact,
                value=value,
                span=answered.span,
                distance=at - when,
                live=len(self.told),
                stale=stale,
            )
        return self._tells(kind, self.draw.choice(list(self.told)) if kind == "retell" else self._new(), at)

    def _kind(self, at: int) -> Kind:
        config = self.config
        if at < config.opening:
            return "tell"
        shares: dict[Kind, float] = {"chat": config.chat, "untold": config.untold}
        if len(self.told) < config.max_live:
            shares["tell"] = config.tell
        if self.told:
            shares |= {"retell": config.retell, "ask": config.ask}
        return self.draw.choices(list(shares), list(shares.values()))[0]

    def _new(self) -> Fact:
        """One that was not told."""
        draw, every = self.draw, range(self.config.num_relations)
        known = sorted({fact.relation for fact in self.told})
        rival, of_others = (draw.random() < share for share in (self.config.rivals, self.config.others))
        user, others = (None,), tuple(self.people)
        wanted, unwanted = (others, user) if of_others else (user, others)
        choices = ((wanted, every), (unwanted, every))
        for subjects, relations in (((*user, *others), known), *choices) if rival else choices:
            if free := [Fact(who, at) for at in relations for who in subjects if Fact(who, at) not in self.told]:
                return draw.choice(free)
        raise AssertionError("max_live is less than there is to tell")

    def _tells(self, kind: Kind, fact: Fact, at: int) -> Turn:
        relation, before = RELATIONS[fact.relation], self.told.get(fact)
        old = None if before is None else before.value
        value = old
        while value == old:
            value = self._value(relation)
        assert value is not None
        query = self._filled(self._wording("change" if old else "tell", relation), fact, v=value, old=old or "").text
        self.told[fact] = _Told(value, at, old)
        return Turn(kind=kind, query=query, answer=self.draw.choice(NOTED), fact=fact, value=value, live=len(self.told))

    def _value(self, relation: Relation) -> str:
        if self.config.mixed and self.draw.random() < self.config.mixed:
            return mixed(self.draw)
        return self.draw.choice(pool(relation.kind, self.config.split))

    def _asks(self, fact: Fact) -> str:
        return self._filled(self._wording("ask", self._of(fact)), fact).text

    def _wording(self, use: Use, relation: Relation) -> str:
        split = self.config.split
        special = self.draw.random() < self.config.own
        return self.draw.choice(own(relation, use, split) if special else general(use, split))

    def _filled(self, sentence: str, fact: Fact, *, answering: bool = False, **parts: str) -> Filled:
        return fill(sentence, subject=fact.subject, answering=answering, thing=self._of(fact).thing, **parts)

    def _of(self, fact: Fact) -> Relation:
        return RELATIONS[fact.relation]

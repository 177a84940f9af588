"""Rows of conversations as batches of the reinforcement and preference stages.

Letters: B conversations, N interactions, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from riallm.core.errors import UsageError
from riallm.data.dialogue_rows import Answer, Chosen, Quizzed
from riallm.models.episodes import Episodes, Interaction, episodes
from riallm.tokenizer.hybrid import HybridTokenizer
from riallm.tokenizer.interaction import interaction_ids, query_ids
from riallm.train.loop import Carried, Carry
from riallm.train.preference import Preferences
from riallm.train.reinforce import Quiz


class Question(NamedTuple):
    """An interaction with its right answer. asked: the model answers it itself; told: from memory. fact: ids of the
    answer that have to come; none, all of it."""

    right: Interaction
    asked: bool = False
    told: bool = False
    fact: Sequence[int] = ()


class Pair(NamedTuple):
    """An interaction with a better and a worse answer, or with the better one alone."""

    accepted: Interaction
    rejected: Interaction | None = None
    neutral: Interaction | None = None


_NOTHING = Interaction((), 0)


def quiz(rows: Sequence[Sequence[Question]], *, num_tokens: int, samples: int, end: int, seed: int) -> Quiz:
    """Side by side. Raises UsageError as `episodes` and `Quiz`, and for a fact that its answer does not hold."""
    given = episodes([[each.right for each in row] for row in rows], num_tokens=num_tokens)
    asked = _places(rows, given, lambda each: each.asked)
    told = _places(rows, given, lambda each: each.told)
    facts = torch.zeros_like(given.mask)
    for row, questions in enumerate(rows):
        for at, each in enumerate(questions):
            if each.fact:
                first = _found(each)
                facts[row, at, first : first + len(each.fact)] = True
    return Quiz(given=given, asked=asked, told=told, facts=facts, samples=samples, end=end, seed=seed)


def _found(question: Question) -> int:
    """Where the fact begins."""
    ids, fact = list(question.right.ids), list(question.fact)
    for first in range(question.right.answer_at, len(ids) - len(fact) + 1):
        if ids[first : first + len(fact)] == fact:
            return first
    raise UsageError(f"the fact {fact} is no part of the answer {ids[question.right.answer_at :]}, token by token")


def preferences(rows: Sequence[Sequence[Pair]], *, num_tokens: int, seed: int = 0) -> Preferences:
    """Side by side. seed: of a memory's start that is drawn. Raises UsageError as `episodes` and `Preferences`."""
    accepted = episodes([[each.accepted for each in row] for row in rows], num_tokens=num_tokens)
    kinds = {}
    for name in ("rejected", "neutral"):
        kinds[name] = episodes(
            [[getattr(each, name) or _NOTHING for each in row] for row in rows], num_tokens=num_tokens
        )
    return Preferences(
        accepted=replace(accepted, seed=seed),
        rejected=kinds["rejected"],
        pairs=kinds["rejected"].mask.any(dim=-1),
        neutral=kinds["neutral"],
        anchors=kinds["neutral"].mask.any(dim=-1),
    )


def _places(rows: Sequence[Sequence[Question]], given: Episodes, of: Callable[[Question], bool]) -> Tensor:
    found = torch.zeros(given.tokens.shape[:2], dtype=torch.bool)
    for row, questions in enumerate(rows):
        found[row, : len(questions)] = torch.tensor([of(each) for each in questions])
    return found


def questions_of(row: Quizzed, tokenizer: HybridTokenizer) -> list[Question]:
    """A row of text as ids."""
    return [
        Question(
            right=_interaction(tokenizer, each.query, Answer(answer=each.answer, think=each.think)),
            asked=each.asked,
            told=each.fact is not None,
            fact=_fact(tokenizer, each.answer, each.fact) if each.fact else (),
        )
        for each in row.interactions
    ]


def pairs_of(row: Chosen, tokenizer: HybridTokenizer) -> list[Pair]:
    """A row of text as ids."""

    def made(query: str, answer: Answer | None) -> Interaction | None:
        return None if answer is None else _interaction(tokenizer, query, answer)

    return [
        Pair(
            accepted=_interaction(tokenizer, each.query, each.accepted),
            rejected=made(each.query, each.rejected),
            neutral=made(each.query, each.neutral),
        )
        for each in row.interactions
    ]


def _fact(tokenizer: HybridTokenizer, answer: str, fact: str) -> list[int]:
    """The fewest tokens of the answer whose text holds the fact: alone it may be written by other tokens."""
    ids = tokenizer.encode(answer)
    spans = ((first, first + size) for size in range(1, len(ids) + 1) for first in range(len(ids) - size + 1))
    return next(ids[first:end] for first, end in spans if fact in tokenizer.decode(ids[first:end]))


def _interaction(tokenizer: HybridTokenizer, query: str, answer: Answer) -> Interaction:
    ids = interaction_ids(tokenizer, query, answer.answer, thought=answer.think)
    return Interaction(ids, len(query_ids(tokenizer, query)) + 1)  # behind the marker, of reasoning or of the answer


def repeated(made: Callable[[int], Quiz], *, updates: int, accumulate: int = 1) -> Carried[Quiz]:
    """A source whose questions of a number serve `updates` steps: they are answered at the first, and the answers are
    carried to the others. made: the questions of a number; a step takes `accumulate` of them."""

    def source(number: int, carry: Carry | None) -> Quiz:
        step, place = divmod(number, accumulate)
        fresh = made(step // updates * accumulate + place)
        return fresh if step % updates == 0 or carry is None else replace(fresh, rolled=carry)

    return Carried(source)

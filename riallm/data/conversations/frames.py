"""Sentences that fit every relation, small talk, and how a sentence gets its owner and value.

Placeholders are those of `relations`; `{thing}` is the relation's, `{old}` the value before. Of each group the last
ones are kept for testing, and are made of words that training has.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from riallm.data.conversations.relations import Relation
from riallm.data.conversations.values import Split

Use = Literal["tell", "change", "ask"]

FRAMES: dict[Use, tuple[str, ...]] = {
    "tell": (
        "{own} {thing} is {v}.",
        "Please note that {own} {thing} is {v}.",
        "You should know that {own} {thing} is {v}.",
        "By the way, {own} {thing} is {v}.",
        "Remember this: {own} {thing} is {v}.",
        "I want to tell you that {own} {thing} is {v}.",
        "Just so you know, {own} {thing} is {v}.",
        "Please take {v} as {own} {thing}.",
        "If you need {own} {thing}, it is {v}.",
        "I can tell you {own} {thing}: it is {v}.",
        "Please remember that {own} {thing} is {v}.",
        "I want you to know {own} {thing}, it is {v}.",
        "Please note this: {own} {thing} is {v}.",
    ),
    "change": (
        "{own} {thing} is {v} now.",
        "{own} {thing} has changed to {v}.",
        "I was wrong, {own} {thing} is {v}.",
        "{own} {thing} is no longer {old}, it is {v}.",
        "Please change {own} {thing} to {v}.",
        "From now on {own} {thing} is {v}.",
        "Forget {old}, {own} {thing} is {v} now.",
        "There is news: {own} {thing} is now {v}.",
        "{own} new {thing} is {v}.",
        "{own} {thing} is {v} and not {old}.",
        "{own} {thing} has changed, it is {v} now.",
        "Please note that {own} {thing} is now {v}.",
        "From now on {own} {thing} is no longer {old} but {v}.",
    ),
    "ask": (
        "What is {own} {thing}?",
        "Can you tell me {own} {thing}?",
        "Do you remember {own} {thing}?",
        "Do you know what {own} {thing} is?",
        "Please tell me {own} {thing}.",
        "I forgot {own} {thing}. What is it?",
        "Tell me what {own} {thing} is.",
        "What did I say {own} {thing} is?",
        "I need {own} {thing} now.",
        "I want to know {own} {thing}.",
        "Do you know {own} {thing}?",
        "Can you remember what {own} {thing} is?",
        "I need to know {own} {thing}.",
    ),
}
HELD_FRAMES = 3
"""Of each group, kept for testing; of a relation's own sentences it is one."""

ANSWERS = ("{own} {thing} is {v}.", "It is {v}.")
"""To what was told; with `{own}` as "your". The value never begins a sentence, so that its tokens are the same
everywhere."""
NOT_TOLD = "You have not told me {own} {thing}."
NOTED = ("Noted.", "I will remember that.")

CHAT: tuple[tuple[str, str], ...] = (
    ("Hello!", "Hello, how are you?"),
    ("How are you today?", "I am fine, thank you."),
    ("Thank you.", "You are welcome."),
    ("The weather is nice today.", "That is good to hear."),
    ("It was a long day.", "Then you should rest now."),
    ("I am tired.", "Then you should rest now."),
    ("What can you do?", "I remember what you tell me."),
    ("Who are you?", "I am a small model that remembers."),
    ("That is all for now.", "I am here if you need me."),
    ("I read a book about {place}.", "That is good to hear."),
    ("They talked about {person} on the news.", "I see."),
    ("We saw a {thing} in a shop.", "I see."),
    ("There was {dish} at the market.", "I see."),
    ("A friend of a friend lives on {street}.", "I see."),
    ("The film about the {job} was good.", "That is good to hear."),
    ("I saw a {colour} boat today.", "I see."),
    ("A dog in the news is called {pet}.", "I see."),
    ("The shop was closed on {date}.", "I see."),
    ("The bus had the number {code}.", "I see."),
    ("It is good to talk to you.", "Thank you."),
    ("Hello, are you fine today?", "I am fine, thank you."),
    ("It was a good day today.", "That is good to hear."),
    ("There was a book about {person} in a shop.", "I see."),
    ("We saw a film about {place}.", "I see."),
    ("They talked about {dish} today.", "I see."),
    ("I am tired, it was a long day.", "Then you should rest now."),
)
HELD_CHAT = 6

_SAID = re.compile(r"(?:It|(?:Your|[A-Z]\w*'s) [\w' ]+?) is (?P<value>.+)\.")
_CHOICE = re.compile(r"\[([^|\]]+)\|([^\]]+)\]")
_PLACE = re.compile(r"\{(\w+)\}")


class Filled(NamedTuple):
    """A sentence; where its value is, [begin, end) in characters, None where it has none."""

    text: str
    span: tuple[int, int] | None


def general(use: Use, split: Split) -> Sequence[str]:
    """The sentences for all relations that a split may draw; those of `test` and `unseen` are the same, and none of
    them is in training."""
    return _part(FRAMES[use], HELD_FRAMES, split)


def own(relation: Relation, use: Use, split: Split) -> Sequence[str]:
    """A relation's own sentences, as `general`."""
    return _part({"tell": relation.tells, "change": relation.changes, "ask": relation.asks}[use], 1, split)


def chat(split: Split) -> Sequence[tuple[str, str]]:
    """Small talk of a split: what is said, in which `{kind}` is any value of that kind, and the answer."""
    return CHAT[:-HELD_CHAT] if split == "train" else CHAT[-HELD_CHAT:]


def _part(of: tuple[str, ...], held: int, split: Split) -> tuple[str, ...]:
    return of[:-held] if split == "train" else of[-held:]


def fill(sentence: str, *, subject: str | None, answering: bool = False, **parts: str) -> Filled:
    """A sentence about the user (None) or a named person, its placeholders filled. answering: the one who is told says
    it, to whom the user is "you"."""
    me = subject is None
    words = {
        "own": f"{subject}'s" if not me else "your" if answering else "my",
        "who": subject or "I",
        "whom": subject or "me",
        **parts,
    }
    text = _CHOICE.sub(lambda found: found[1 if me else 2], sentence)
    done, at, span = "", 0, None
    for found in _PLACE.finditer(text):
        done += text[at : found.start()]
        if found[1] == "v":
            span = (len(done), len(done) + len(words["v"]))
        done, at = done + words[found[1]], found.end()
    done += text[at:]
    return Filled(done[0].upper() + done[1:], span)


def said(answer: str) -> str | None:
    """The value that an answer in one of the forms of ANSWERS gives, None for any other text."""
    found = _SAID.fullmatch(answer.strip())
    return None if found is None else found["value"]


def says_not_told(answer: str) -> bool:
    """Whether an answer says that nothing was told."""
    return answer.strip().startswith(NOT_TOLD.partition(" {")[0])

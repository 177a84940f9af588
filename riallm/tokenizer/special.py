"""The special tokens: one table with name, class and meaning.

Those of the RIA document's section 2.2.2 come first, then what our training needs. A special token stands for no
bytes of any text, so text that contains its name is still text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class TokenClass(StrEnum):
    """The five classes of the RIA document, 2.2.1. The 256 single bytes are subwords."""

    SUBWORD = "subword"
    IDENTIFIER = "identifier"
    SYNTAX = "syntax"
    TOOL = "tool"
    AGENTIC = "agentic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Special:
    """name: as the token is shown in text. kind: TOOL or AGENTIC."""

    name: str
    kind: TokenClass
    meaning: str


# A marker with a value, such as <|file:a.py|>, is an opening token, the value as ordinary tokens, and CLOSE.
VALUED = ("file", "error")
CLOSE = "|>"
END_OF_TEXT = "<|end_of_text|>"
PAD = "<|pad|>"
NUM_HOLES = 16


def opening(kind: str) -> str:
    """Name of the token that opens a marker of that kind, for instance `<|file:`."""
    return f"<|{kind}:"


def hole(index: int) -> str:
    """Name of the sentinel of one hole, 0 to NUM_HOLES - 1."""
    return f"<|hole_{index}|>"


_TOOL = (
    ("<|tool_call|>", "a tool invocation begins"),
    ("<|tool_result|>", "what the tool answered begins"),
    (opening("error"), "opens an error annotation; its type follows as ordinary tokens"),
)

_AGENTIC = (
    ("<|plan_start|>", "planning begins"),
    ("<|plan_end|>", "planning ends"),
    ("<|code_start|>", "code generation begins"),
    ("<|code_end|>", "code generation ends"),
    ("<|test_start|>", "test generation begins"),
    ("<|test_end|>", "test generation ends"),
    ("<|debug_start|>", "debugging begins"),
    ("<|debug_end|>", "debugging ends"),
    ("<|think|>", "internal reasoning begins"),
    ("<|/think|>", "internal reasoning ends"),
    ("<|verify|>", "a verification step begins"),
    ("<|verify_result|>", "its result begins"),
    (opening("file"), "opens a file's context marker; its path follows as ordinary tokens"),
    (CLOSE, "closes a marker that has a value"),
    ("<|success|>", "the task succeeded"),
    ("<|failure|>", "the task failed"),
    (END_OF_TEXT, "a document ends"),
    (PAD, "fills a row; never predicted"),
    ("<|fim_prefix|>", "fill in the middle: the text before the hole"),
    ("<|fim_suffix|>", "fill in the middle: the text after the hole"),
    ("<|fim_middle|>", "fill in the middle: the text of the hole"),
    *((hole(index), "stands for a removed span, then introduces its text") for index in range(NUM_HOLES)),
    ("<|line|>", "repair: marks a line that may be edited; its number follows"),
    ("<|old|>", "repair: the text that is replaced"),
    ("<|new|>", "repair: the text that replaces it"),
    ("<|edit_end|>", "repair: the edit is complete"),
)

SPECIALS: tuple[Special, ...] = (
    *(Special(name=name, kind=TokenClass.TOOL, meaning=meaning) for name, meaning in _TOOL),
    *(Special(name=name, kind=TokenClass.AGENTIC, meaning=meaning) for name, meaning in _AGENTIC),
)


def specials(num_tool: int, num_agentic: int) -> tuple[Special, ...]:
    """The table, each class filled up with reserved tokens to the given number; tool tokens first."""
    made: list[Special] = []
    for kind, number in ((TokenClass.TOOL, num_tool), (TokenClass.AGENTIC, num_agentic)):
        named = [special for special in SPECIALS if special.kind is kind]
        names = (f"<|{kind}_reserved_{index}|>" for index in range(number - len(named)))
        made += [*named, *(Special(name=name, kind=kind, meaning="reserved, unused") for name in names)]
    return tuple(made)


def special_pattern(names: Sequence[str]) -> re.Pattern[str]:
    """Finds specials in text that its caller trusts. A marker with a value matches whole: groups `kind` and `value`.

    CLOSE alone is no match, because it occurs in ordinary code of other languages.
    """
    partial = {CLOSE, *(opening(kind) for kind in VALUED)}
    alone = [re.escape(name) for name in names if name not in partial]
    valued = rf"<\|(?P<kind>{'|'.join(VALUED)}):(?P<value>[^\n]*?)\|>"
    return re.compile("|".join([valued, *alone]))

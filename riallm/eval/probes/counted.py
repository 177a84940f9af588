"""Questions to a memory, counted: shares with their intervals, by condition, distance and what else may matter.

The questions of a conversation are answered from one memory and depend on each other: what was lost is wrong each time
that it is asked for. So intervals are those of conversations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

from riallm.core.errors import UsageError
from riallm.eval.stats import grouped_mean, grouped_share

_T = TypeVar("_T")

CONDITIONS = ("memory", "reset", "swap", "unread")
"""With the conversation's memory, and the controls on the same weights: the memory of a new conversation, that of
another conversation at the same place, and a decoder that looks at none."""

Reader = Literal["history", "encodings"]
"""Conditions of a model that keeps the whole conversation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question for a value. condition: what the decoder looked at. right: it gave the value; stale: the one that was
    overwritten; none: that it was never told; donor: with swapped memory, the value of that key in the conversation
    that the memory is of, None where it was not told there. nats: of the right value, None where nobody counted. told:
    False where the value was never told, and `none` is what is right. group: what the question is about. conversation:
    the number of the one that it is asked in."""

    conversation: int
    condition: str
    distance: int
    live: int
    retold: bool
    right: bool
    stale: bool
    none: bool
    donor: bool | None
    nats: float | None = None
    told: bool = True
    group: str = ""


def check(*, num: int, rows: int, ask: float) -> None:
    """Raises UsageError where `num` questions to `rows` conversations side by side cannot be asked; ask: how often a
    conversation asks for what was told."""
    if rows < 2 or num < 1:
        raise UsageError(f"rows is {rows} and num {num}; at least 2, for memories to be swapped, and 1")
    if not ask:
        raise UsageError("ask is 0, so nothing that was told is ever asked for")


def table(asked: Sequence[Asked], *, num_values: int | None = None) -> dict[str, Any]:
    """Figures with intervals: exact answers by condition and distance, with memory by live facts and after a change;
    what swapped memory answers; how often it is seen that nothing was told; nats of right values, and where these
    are among `num_values` values, information recovered, 1 - nats / ln(values): 0 is none, 1 all of it."""
    found: dict[str, Any] = {"questions": sum(each.told and each.condition == asked[0].condition for each in asked)}
    for condition in dict.fromkeys(each.condition for each in asked):
        every = [each for each in asked if each.condition == condition]
        these = [each for each in every if each.told]
        found[condition] = {
            "exact": told(these, lambda each: each.right),
            "none": told(these, lambda each: each.none),
            "by_distance": _by(these, lambda each: each.distance),
        }
        nats = by_conversation((each, each.nats) for each in these if each.nats is not None)
        if nats:
            found[condition]["nats"] = asdict(grouped_mean(nats))
        if num_values is not None:
            whole = math.log(num_values)
            found[condition]["information"] = asdict(grouped_mean([[1.0 - n / whole for n in each] for each in nats]))
        if len(every) > len(these):
            found[condition]["untold"] = told([each for each in every if not each.told], lambda each: each.none)
        if condition not in CONDITIONS[1:]:
            found[condition]["by_live"] = _by(these, lambda each: each.live)
            retold = [each for each in these if each.retold]
            found[condition]["told_once"] = told([each for each in these if not each.retold], lambda each: each.right)
            found[condition]["retold"] = told(retold, lambda each: each.right)
            found[condition]["retold_stale"] = told(retold, lambda each: each.stale)
            if any(each.group for each in these):
                found[condition]["by_group"] = _by(these, lambda each: each.group)
        if condition == "swap":
            donor = [each for each in these if each.donor is not None]
            found[condition]["donor"] = told(donor, lambda each: bool(each.donor))
    return found


def told(asked: Sequence[Asked], right: Callable[[Asked], bool]) -> dict[str, Any]:
    """A share, with its interval and number."""
    return asdict(grouped_share(by_conversation((each, right(each)) for each in asked)))


def by_conversation(values: Iterable[tuple[Asked, _T]]) -> list[list[_T]]:
    """What is told of each question, those of a conversation together."""
    groups: dict[int, list[_T]] = {}
    for each, value in values:
        groups.setdefault(each.conversation, []).append(value)
    return list(groups.values())


def _by(asked: Sequence[Asked], of: Callable[[Asked], int] | Callable[[Asked], str]) -> dict[str, Any]:
    groups: dict[Any, list[Asked]] = {}
    for each in asked:
        groups.setdefault(of(each), []).append(each)
    return {str(group): told(groups[group], lambda each: each.right) for group in sorted(groups)}

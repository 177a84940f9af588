"""A worse answer to each question of a tell/ask conversation, for preferences and for what learns from them."""

from __future__ import annotations

import random
from collections.abc import Sequence

from riallm.data.tell_ask import NONE, TellAskConfig, Turn

CONFUSED, DENIED = 0.5, 0.25
"""How often a wrong answer is a value that was told of something else or overwritten, where there is one; and how often
it says that nothing was told. The rest are values of nowhere."""


def rejected(config: TellAskConfig, turns: Sequence[Turn], number: int) -> list[int | None]:
    """For each interaction the id of a wrong answer, None for what is no question. A function of the conversation, its
    number and the seed."""
    draw = random.Random(f"{config.seed}:rejected:{number}")
    told: dict[int, int] = {}
    found: list[int | None] = []
    for turn in turns:
        if turn.kind in ("tell", "retell"):
            assert turn.key is not None
            told[turn.key] = turn.query[-1]
        found.append(_wrong(config, draw, turn, told) if turn.kind in ("ask", "untold") else None)
    return found


def _wrong(config: TellAskConfig, draw: random.Random, turn: Turn, told: dict[int, int]) -> int:
    right = turn.answer[0]
    others = {value for key, value in told.items() if key != turn.key}
    if turn.stale is not None:
        others.add(turn.stale)
    others.discard(right)
    kind = draw.random()
    if kind < CONFUSED and others:
        return draw.choice(sorted(others))
    if kind >= 1.0 - DENIED and right != NONE:
        return NONE
    values = range(config.first_value, config.first_value + config.num_values)
    return draw.choice([value for value in values if value != right])

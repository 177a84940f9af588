"""Worse answers: never the right one, of all three kinds, and the same again."""

from __future__ import annotations

from riallm.data.tell_ask import NONE, TellAskConfig, conversation
from riallm.data.tell_ask_rejected import rejected

TASK = TellAskConfig(num_turns=10, num_keys=8, num_values=16, num_fillers=4, max_live=4, retell=0.2, untold=0.2)


def test_every_question_has_a_wrong_answer_and_nothing_else_has() -> None:
    kinds = {"denied": 0, "confused": 0, "nowhere": 0}
    for number in range(200):
        turns = conversation(TASK, number)
        found = rejected(TASK, turns, number)
        assert found == rejected(TASK, turns, number)
        told: set[int] = set()
        for turn, wrong in zip(turns, found, strict=True):
            if turn.kind in ("tell", "retell"):
                told.add(turn.query[-1])
            assert (wrong is None) == (turn.kind not in ("ask", "untold"))
            if wrong is not None:
                assert wrong != turn.answer[0]
                assert wrong == NONE or 0 <= wrong - TASK.first_value < TASK.num_values
                kinds["denied" if wrong == NONE else "confused" if wrong in told else "nowhere"] += 1
    assert min(kinds.values()) > 0.15 * sum(kinds.values())

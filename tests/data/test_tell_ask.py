"""Tell/ask conversations: what is asked was told, the last value counts, and every number has its own conversation."""

from __future__ import annotations

import pytest

from riallm.core.errors import UsageError
from riallm.data.tell_ask import (
    ANSWER,
    ASKED,
    BEGIN,
    END,
    NONE,
    NUM_SPECIAL,
    OK,
    QUERY,
    TellAskConfig,
    conversation,
    interaction,
)

CONFIG = TellAskConfig(num_turns=24, num_keys=12, num_values=9, max_live=5)


def test_every_answer_follows_from_what_was_told_before() -> None:
    kinds = set()
    for number in range(200):
        told: dict[int, tuple[int, int]] = {}
        for at, turn in enumerate(conversation(CONFIG, number)):
            kinds.add(turn.kind)
            if turn.kind in ("tell", "retell"):
                key, _, value = turn.query
                assert (key in told) == (turn.kind == "retell")
                assert told.get(key, (None, 0))[0] != value
                told[key] = (value, at)
                assert turn.answer == (OK,)
            elif turn.kind == "ask":
                assert turn.answer == (told[turn.query[0]][0],)
                assert turn.distance == at - told[turn.query[0]][1]
                assert turn.stale != turn.answer[0]
            elif turn.kind == "untold":
                assert turn.query[0] not in told
                assert turn.answer == (NONE,)
            assert turn.kind == "chat" or turn.live == len(told) <= CONFIG.max_live
    assert kinds == {"tell", "retell", "ask", "untold", "chat"}


def test_a_conversation_is_a_function_of_number_and_seed() -> None:
    assert conversation(CONFIG, 3) == conversation(CONFIG, 3)
    assert conversation(CONFIG, 3) != conversation(CONFIG, 4)
    other = TellAskConfig(num_turns=24, num_keys=12, num_values=9, max_live=5, seed=1)
    assert conversation(CONFIG, 3) != conversation(other, 3)


def test_values_are_drawn_evenly() -> None:
    counts = [0] * CONFIG.num_values
    for number in range(600):
        for turn in conversation(CONFIG, number):
            if turn.kind == "tell":
                counts[turn.query[-1] - CONFIG.first_value] += 1
    assert min(counts) > 0.8 * sum(counts) / len(counts)


def test_an_interaction_has_its_markers_and_fits() -> None:
    lengths = set()
    for number in range(100):
        for turn in conversation(CONFIG, number):
            ids, answer_at = interaction(turn)
            assert ids[:2] == [BEGIN, QUERY]
            assert ids[answer_at - 1] == ANSWER
            assert tuple(ids[answer_at:-1]) == turn.answer
            assert ids[-1] == END
            assert max(ids) < CONFIG.vocab_size
            lengths.add(len(ids))
    assert max(lengths) <= CONFIG.max_tokens
    assert CONFIG.first_value == NUM_SPECIAL + 12
    assert ASKED < NUM_SPECIAL


def test_conversations_may_end_earlier() -> None:
    config = TellAskConfig(num_turns=6, min_turns=3)
    assert {len(conversation(config, number)) for number in range(80)} == {3, 4, 5, 6}
    for wrong in ({"num_turns": 1}, {"num_turns": 4, "min_turns": 5}, {"num_turns": 4, "max_live": 64}):
        with pytest.raises(UsageError):
            TellAskConfig(**wrong)


def test_a_conversation_may_begin_with_facts() -> None:
    config = TellAskConfig(num_turns=8, max_live=3, opening=3, retell=0.0, chat=0.0)
    for number in range(50):
        kinds = [turn.kind for turn in conversation(config, number)]
        assert kinds[:3] == ["tell"] * 3
        assert set(kinds[3:]) <= {"ask", "untold"}
    with pytest.raises(UsageError, match="opening is 4"):
        TellAskConfig(num_turns=8, max_live=3, opening=4)

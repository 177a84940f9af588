"""Conversations in English: what is asked was told, the last value counts, and nothing of the test is in training."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from riallm.core.errors import UsageError
from riallm.data.conversations.conversation import ConversationConfig, Fact, Turn, conversation
from riallm.data.conversations.frames import (
    CHAT,
    FRAMES,
    HELD_CHAT,
    HELD_FRAMES,
    fill,
    general,
    own,
    said,
    says_not_told,
)
from riallm.data.conversations.relations import RELATIONS
from riallm.data.conversations.values import KINDS, SPLITS, UNSEEN, Split, pool

CONFIG = ConversationConfig(num_turns=24, max_live=5, retell=0.2)
USES = ("tell", "change", "ask")


def turns(split: Split, num: int = 400) -> Iterator[Turn]:
    config = ConversationConfig(num_turns=24, max_live=16, retell=0.25, people=6, split=split)
    for number in range(num):
        yield from conversation(config, number)


@pytest.mark.parametrize("split", SPLITS)
def test_every_answer_follows_from_what_was_told_before(split: Split) -> None:
    kinds = set()
    config = ConversationConfig(num_turns=24, max_live=5, retell=0.2, split=split)
    for number in range(150):
        told: dict[Fact, tuple[str, int]] = {}
        before: dict[Fact, str] = {}
        for at, turn in enumerate(conversation(config, number)):
            kinds.add(turn.kind)
            assert turn.kind == "chat" or turn.live == len(told) + (turn.kind == "tell") <= config.max_live
            if turn.kind == "chat":
                continue
            assert turn.fact is not None
            if turn.kind in ("tell", "retell"):
                assert (turn.fact in told) == (turn.kind == "retell")
                assert turn.value in turn.query
                if turn.fact in told:
                    before[turn.fact] = told[turn.fact][0]
                    assert before[turn.fact] != turn.value
                told[turn.fact] = (turn.value, at)
            elif turn.kind == "ask":
                value, when = told[turn.fact]
                assert turn.value == value == turn.answer[slice(*turn.span)] == said(turn.answer)
                assert turn.distance == at - when
                assert turn.stale == before.get(turn.fact)
                assert value not in turn.query
            else:
                assert turn.fact not in told
                assert says_not_told(turn.answer)
                assert said(turn.answer) is None
    assert kinds == {"tell", "retell", "ask", "untold", "chat"}


def test_mixed_values_belong_to_no_kind_and_none_is_kept_for_testing() -> None:
    config = ConversationConfig(num_turns=24, max_live=12, mixed=0.5)
    values = [turn.value for number in range(200) for turn in conversation(config, number) if turn.kind == "tell"]
    kept = {value for kind in KINDS for value in pool(kind, "test")}
    known = {value for kind in KINDS for value in pool(kind, "train")}
    assert 0.4 < sum(value not in known for value in values) / len(values) < 0.6
    assert not kept & set(values)
    words = {part for kind in KINDS.values() for part in (*kind.first, *kind.second)}
    assert all(set(value.split()) <= words for value in values if value not in known)
    with pytest.raises(UsageError, match="values are mixed in training"):
        ConversationConfig(num_turns=24, split="test", mixed=0.5)


def test_nothing_that_is_said_in_the_test_is_in_training() -> None:
    """By construction, for every sentence and value that can be drawn; and as drawn."""
    for kind, of in KINDS.items():
        train, test, unseen = (set(pool(kind, split)) for split in SPLITS)
        assert not train & test and not train & unseen and not test & unseen
        assert len(train | test) == len(of.first) * len(of.second)
        assert len(test) >= 0.15 * len(train)
    for use in USES:
        assert not set(general(use, "train")) & set(general(use, "test"))
        trained = {sentence for relation in RELATIONS for sentence in own(relation, use, "train")}
        assert not trained & {sentence for relation in RELATIONS for sentence in own(relation, use, "test")}
    drawn = {split: list(turns(split)) for split in SPLITS}
    queries = {split: {turn.query for turn in of} for split, of in drawn.items()}
    values = {split: {turn.value for turn in of} - {None} for split, of in drawn.items()}
    for one, other in (("train", "test"), ("train", "unseen")):
        assert len(queries[other]) > 1000
        assert not queries[one] & queries[other]
        assert not values[one] & values[other]


def test_the_test_is_made_of_words_that_training_has() -> None:
    words = {
        split: {word for turn in turns(split) for word in re.findall(r"[\w']+", f"{turn.query} {turn.answer}")}
        for split in SPLITS
    }
    codes = {word for word in words["test"] if word.isdigit() and len(word) == 4}
    assert words["test"] - codes - words["train"] == set()
    assert words["unseen"] - words["train"] == {*UNSEEN.first, *UNSEEN.second}
    for kind in KINDS.values():
        trained = kind.values("train")
        for first in kind.first:
            assert any(f"{first}{kind.between}{second}" in trained for second in kind.second)
        for second in kind.second:
            assert any(f"{first}{kind.between}{second}" in trained for first in kind.first)


def test_there_are_many_relations_with_many_wordings() -> None:
    assert len(RELATIONS) >= 24
    assert (
        len({relation.name for relation in RELATIONS})
        == len({relation.thing for relation in RELATIONS})
        == len(RELATIONS)
    )
    for relation in RELATIONS:
        for use in USES:
            every = [
                *general(use, "train"),
                *own(relation, use, "train"),
                *general(use, "test"),
                *own(relation, use, "test"),
            ]
            assert len(every) == len(set(every)) >= 8
            assert len(own(relation, use, "test")) == 1 <= len(own(relation, use, "train"))
        # No two relations share a sentence, so that a question asks for one fact.
        for use in USES:
            for other in RELATIONS:
                mine, theirs = ({*own(each, use, "train"), *own(each, use, "test")} for each in (relation, other))
                assert relation is other or not mine & theirs, (relation.name, other.name)
    assert all(len(FRAMES[use]) > 2 * HELD_FRAMES for use in USES)
    assert len(CHAT) > 3 * HELD_CHAT


def test_a_sentence_is_filled_for_the_user_and_for_others() -> None:
    sentence = "{own} dog and {who} [have|has] {v}, not {old}, say {whom}."
    assert fill(sentence, subject=None, v="Rex", old="Max") == ("My dog and I have Rex, not Max, say me.", (18, 21))
    assert fill(sentence, subject="Anna", v="Rex", old="Max").text == "Anna's dog and Anna has Rex, not Max, say Anna."
    assert fill("{own} dog.", subject=None, answering=True) == ("Your dog.", None)


def test_values_are_read_from_answers_alone_that_give_one() -> None:
    assert said("It is Captain Rex.") == "Captain Rex"
    assert said(" Your dog's name is Captain Rex.") == "Captain Rex"
    assert said("Anna's home town is New Perth.") == "New Perth"
    for other in ("Captain Rex.", "It is Captain Rex", "You have not told me your job.", "", "is x", "My job is x."):
        assert said(other) is None
    assert says_not_told("You have not told me your job.")
    assert not says_not_told("It is Captain Rex.")


def test_a_conversation_is_a_function_of_number_and_configuration() -> None:
    assert conversation(CONFIG, 3) == conversation(CONFIG, 3)
    assert conversation(CONFIG, 3) != conversation(CONFIG, 4)
    assert conversation(CONFIG, 3) != conversation(ConversationConfig(num_turns=24, max_live=5, retell=0.2, seed=1), 3)
    code = (
        "import sys; from riallm.data.conversations.conversation import ConversationConfig, conversation\n"
        "print(conversation(ConversationConfig(num_turns=24, max_live=5, retell=0.2), 3))\n"
        "assert 'torch' not in sys.modules and 'tokenizers' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == str(conversation(CONFIG, 3)), done.stderr


def test_facts_belong_to_whom_the_configuration_says() -> None:
    def subjects(**options: float) -> tuple[float, float]:
        """Shares of facts that are of others, and of those whose relation somebody else has told of before."""
        of_others, rivals, num = 0, 0, 0
        for number in range(200):
            known: list[int] = []
            for turn in conversation(ConversationConfig(num_turns=8, max_live=8, opening=8, **options), number):
                of_others += turn.fact.subject is not None
                rivals += turn.fact.relation in known
                known.append(turn.fact.relation)
                num += 1
        return of_others / num, rivals / num

    assert subjects(people=0, rivals=0.0) == (0.0, 0.0)
    assert subjects(people=3, others=1.0, rivals=0.0)[0] == 1.0
    assert subjects(people=3, others=0.0, rivals=1.0)[1] == 0.75  # four have a relation, then there is another
    some, few = subjects(people=3, others=0.4, rivals=0.0)
    assert 0.35 < some < 0.45 and few < 0.2
    names = {turn.fact.subject for turn in turns("train", 100) if turn.fact}
    assert len(names) == 13


def test_a_configuration_that_cannot_be_is_refused() -> None:
    assert {len(conversation(ConversationConfig(num_turns=6, min_turns=3), number)) for number in range(80)} == {
        3,
        4,
        5,
        6,
    }
    few = ConversationConfig(num_turns=9, num_relations=2, people=0, max_live=1)
    assert {turn.fact.relation for n in range(20) for turn in conversation(few, n) if turn.fact} == {0, 1}
    for wrong in (
        {"num_turns": 1},
        {"min_turns": 9},
        {"split": "all"},
        {"num_relations": 0},
        {"num_relations": 99},
        {"people": 13},
        {"others": 1.5},
        {"own": -0.1},
        {"num_relations": 2, "people": 0, "max_live": 2},
        {"opening": 9},
    ):
        with pytest.raises(UsageError):
            ConversationConfig(**{"num_turns": 8, **wrong})  # type: ignore[arg-type]

"""The tokenizer of the English conversations: short interactions, and which tokens training never meets."""

from __future__ import annotations

from itertools import product

import pytest

from riallm.data.conversations.conversation import PEOPLE, ConversationConfig, conversation
from riallm.data.conversations.frames import ANSWERS, NOT_TOLD, NOTED, Use, fill, general, own
from riallm.data.conversations.relations import RELATIONS
from riallm.data.conversations.tokens import VOCAB, make_tokenizer
from riallm.data.conversations.values import KINDS, SPLITS, UNSEEN, Split, pool
from riallm.tokenizer.hybrid import HybridTokenizer
from riallm.tokenizer.interaction import interaction_ids


@pytest.fixture(scope="module")
def tokenizer() -> HybridTokenizer:
    return make_tokenizer()


def interactions(tokenizer: HybridTokenizer, split: Split) -> list[list[int]]:
    config = ConversationConfig(num_turns=16, max_live=12, retell=0.2, people=6, split=split, seed=5)
    return [
        interaction_ids(tokenizer, turn.query, turn.answer)
        for number in range(300)
        for turn in conversation(config, number)
    ]


def test_interactions_are_short(tokenizer: HybridTokenizer) -> None:
    assert tokenizer.vocab_size == VOCAB
    for split in SPLITS:
        lengths = [len(ids) for ids in interactions(tokenizer, split)]
        assert max(lengths) <= 32
        assert sum(length <= 24 for length in lengths) > 0.9 * len(lengths)


def test_no_interaction_that_can_be_drawn_is_longer(tokenizer: HybridTokenizer) -> None:
    """Every value has two tokens, so one of each kind stands for all."""
    lengths = []
    for relation, subject, split in product(RELATIONS, (None, *PEOPLE), ("train", "test")):
        value, old = pool(relation.kind, split)[:2]

        def length(sentence: str, answering: bool = False) -> int:
            filled = fill(sentence, subject=subject, answering=answering, thing=relation.thing, v=value, old=old)  # noqa: B023
            return len(tokenizer.encode(filled.text))

        ways: dict[Use, tuple[int, ...]] = {
            "tell": tuple(len(tokenizer.encode(answer)) for answer in NOTED),
            "ask": tuple(length(answer, answering=True) for answer in (*ANSWERS, NOT_TOLD)),
        }
        ways["change"] = ways["tell"]
        for use, answers in ways.items():
            for sentence in (*general(use, split), *own(relation, use, split)):
                lengths.append(4 + length(sentence) + max(answers))
    assert len(lengths) > 10_000
    assert max(lengths) <= 32


def test_values_of_the_test_have_tokens_of_training_and_unseen_ones_have_none(tokenizer: HybridTokenizer) -> None:
    met = {token for ids in interactions(tokenizer, "train") for token in ids}
    for kind in KINDS:
        of = {split: [tokenizer.encode(f" {value}") for value in pool(kind, split)] for split in SPLITS}
        trained = {token for ids in of["train"] for token in ids}
        assert {token for ids in of["test"] for token in ids} <= trained
        assert all(len(ids) == 2 for ids in of["train"] + of["test"] + of["unseen"])
        assert not {token for ids in of["unseen"] for token in ids} & met
    assert {token for ids in interactions(tokenizer, "test") for token in ids} <= met
    assert len({tokenizer.encode(f" {word}")[0] for word in (*UNSEEN.first, *UNSEEN.second)}) == 32


def test_a_value_is_the_same_tokens_wherever_it_stands(tokenizer: HybridTokenizer) -> None:
    config = ConversationConfig(num_turns=16, max_live=12, retell=0.2, seed=5)
    asked = 0
    for number in range(60):
        for turn in conversation(config, number):
            if turn.value is not None:
                value = tokenizer.encode(f" {turn.value}")
                for text in (turn.answer,) if turn.kind == "ask" else (turn.query,):
                    ids = tokenizer.encode(text)
                    assert any(ids[at : at + len(value)] == value for at in range(len(ids))), text
                asked += turn.kind == "ask"
    assert asked > 100


def test_the_tokenizer_is_made_again(tokenizer: HybridTokenizer) -> None:
    assert make_tokenizer().sha256 == tokenizer.sha256
    assert make_tokenizer(seed=1).sha256 != tokenizer.sha256

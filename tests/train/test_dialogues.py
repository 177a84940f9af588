"""Rows of conversations as batches: what is asked, told, preferred, and where an answer begins."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from riallm.core.errors import UsageError
from riallm.data.dialogue_rows import Answer, Asked, Choice, Chosen, Quizzed
from riallm.models.episodes import Interaction
from riallm.tokenizer.hybrid import HybridTokenizer
from riallm.tokenizer.interaction import markers, with_markers
from riallm.tokenizer.training import train
from riallm.train.dialogues import Pair, Question, pairs_of, preferences, questions_of, quiz


@pytest.fixture(scope="module")
def tokenizer() -> HybridTokenizer:
    text = Path(textwrap.__file__).read_text(encoding="utf-8") + " It is Rex. It is Max." * 50
    return HybridTokenizer(with_markers(train([text], size=600)))


def test_questions_of_text_have_their_fact_whatever_tokens_it_is_written_with(tokenizer: HybridTokenizer) -> None:
    row = Quizzed(
        interactions=(
            Asked(query="My dog is Rex.", answer="Noted."),
            Asked(query="What is my dog?", answer="It is Rex.", asked=True, fact="Rex"),
            Asked(query="Are you well?", answer="Yes.", asked=True, think="Well"),
        )
    )
    found = questions_of(row, tokenizer)
    data = quiz([found, found[:1]], num_tokens=64, samples=2, end=markers(tokenizer).end, seed=0)
    assert data.asked.tolist() == [[False, True, True], [False, False, False]]
    assert data.told.tolist() == [[False, True, False], [False, False, False]]
    assert data.facts is not None
    fact = data.given.tokens[0, 1][data.facts[0, 1]].tolist()
    assert "Rex" in tokenizer.decode(fact) and "is" not in tokenizer.decode(fact)
    assert not data.facts[0, 0].any() and not data.facts[0, 2].any()
    assert data.num_units == 4
    answer = data.given.tokens[0, 1][data.given.answers[0, 1]].tolist()
    assert tokenizer.decode(answer, specials=False) == "It is Rex." and answer[-1] == markers(tokenizer).end
    thought = data.given.tokens[0, 2][data.given.answers[0, 2]].tolist()
    assert tokenizer.decode(thought) == "Well<|answer|>Yes.<|end|>".replace(
        "<|end|>", tokenizer.decode([markers(tokenizer).end])
    )


def test_pairs_of_text_share_their_query(tokenizer: HybridTokenizer) -> None:
    row = Chosen(
        interactions=(
            Choice(query="My dog is Rex.", accepted=Answer(answer="Noted.")),
            Choice(
                query="My dog?",
                accepted=Answer(answer="Rex."),
                rejected=Answer(answer="Max or so."),
                neutral=Answer(answer="A dog."),
            ),
        )
    )
    data = preferences([pairs_of(row, tokenizer)], num_tokens=64)
    assert data.pairs.tolist() == [[False, True]]
    assert data.anchors is not None and data.anchors.tolist() == [[False, True]]
    prompts = [
        each.tokens[0, 1][each.mask[0, 1] & ~each.answers[0, 1]].tolist() for each in (data.accepted, data.rejected)
    ]
    assert prompts[0] == prompts[1] and prompts[0][-1] == markers(tokenizer).answer
    said = data.rejected.tokens[0, 1][data.rejected.answers[0, 1]].tolist()
    assert tokenizer.decode(said, specials=False) == "Max or so."


def test_a_fact_that_is_not_in_its_answer_is_refused() -> None:
    question = Question(Interaction([1, 2, 3, 4, 5], 3), asked=True, told=True, fact=[2, 3])
    with pytest.raises(UsageError, match="no part of the answer"):
        quiz([[question]], num_tokens=8, samples=2, end=5, seed=0)


def test_an_interaction_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="rows have 4"):
        preferences([[Pair(Interaction([1, 2, 3, 4], 2), Interaction([1, 2, 3, 4, 5], 2))]], num_tokens=4)

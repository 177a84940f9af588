"""What an answer is worth, on answers that are known."""

from __future__ import annotations

import torch

from riallm.models.episodes import Interaction, episodes
from riallm.train.rewards import Said, Shuffled, exact, mentioned

RIGHT = [1, 2, 3, 10, 11, 4]  # the answer is 10 11, then its end
FACT = [False, False, False, False, True, False]


def said(*answers: list[int], facts: bool = True) -> Said:
    rows = [[Interaction([1, 2, 3, *answer], 3)] for answer in answers]
    num = len(rows)
    right = episodes([[Interaction(RIGHT, 3)]] * num, num_tokens=9)
    mask = torch.zeros((num, 9), dtype=torch.bool)
    mask[:, : len(FACT)] = torch.tensor(FACT)
    places = torch.ones((num, 1), dtype=torch.bool)
    ours = episodes(rows, num_tokens=9)
    return Said(lived=ours, places=places, said=ours, right=right, seed=3, facts=mask if facts else None)


def test_exact_is_the_whole_answer_its_end_included() -> None:
    found = exact(said([10, 11, 4], [10, 11], [10, 11, 4, 4], [11, 10, 4], [10, 12, 4], [4]))
    assert found.tolist() == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]


def test_mentioned_is_the_fact_in_whatever_is_said() -> None:
    answers = [10, 11, 4], [11, 4], [20, 11], [10, 4], [4]
    assert mentioned(said(*answers)).tolist() == [1.0, 1.0, 1.0, 0.0, 0.0]
    assert mentioned(said(*answers, facts=False)).tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]


def test_a_fact_of_several_tokens_stands_in_a_row() -> None:
    quiz = said([10, 11, 4], [11, 10, 4], [10, 20, 11])
    assert quiz.facts is not None
    quiz.facts[:, 3] = True
    assert mentioned(quiz).tolist() == [1.0, 0.0, 0.0]


def test_shuffled_deals_out_the_same_numbers_the_same_way_again() -> None:
    quiz = said(*[[10, 11, 4], [4]] * 20)
    one, again = Shuffled()(quiz), Shuffled()(quiz)
    assert torch.equal(one, again) and not torch.equal(one, exact(quiz))
    assert float(one.sum()) == float(exact(quiz).sum()) == 20.0

"""Drawing tokens: each option of `Sampling` against a plain computation of the distribution that it means."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from riallm.core.errors import UsageError
from riallm.engine import choice
from riallm.engine.choice import Chooser
from riallm.engine.request import Sampling
from riallm.engine.text import Answer

LOGITS = torch.randn(12, generator=torch.Generator().manual_seed(3)) * 1.5
DRAWS = 4000


def expected(options: dict[str, Any], prompt: tuple[int, ...]) -> np.ndarray:
    """Written out number by number, in the order that `Sampling` states."""
    own = Sampling(**options)
    values = LOGITS.double().numpy().copy()
    for token, bias in own.logit_bias.items():
        values[token] += bias
    for token in set(prompt):
        values[token] *= own.repetition_penalty if values[token] < 0 else 1 / own.repetition_penalty
    probs = np.exp(values / own.temperature)
    probs /= probs.sum()
    order = np.argsort(-probs)
    if own.top_k:
        probs[order[own.top_k :]] = 0
        probs /= probs.sum()
    over = 0.0
    for token in order:
        if over >= own.top_p:
            probs[token] = 0
        over += probs[token]
    probs[probs < own.min_p * probs.max()] = 0
    return np.asarray(probs / probs.sum())


@pytest.mark.parametrize("first", [2, 256])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.5},
        {"top_k": 3},
        {"top_p": 0.6},
        {"min_p": 0.2},
        {"top_k": 6, "top_p": 0.8, "min_p": 0.05, "temperature": 1.3},
        {"logit_bias": {2: 3.0, 5: -100.0}},
        {"repetition_penalty": 1.8},
    ],
)
def test_draws_follow_the_distribution(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], first: int) -> None:
    monkeypatch.setattr(choice, "FIRST", first)
    prompt = (1, 4, 4)
    wanted = expected(options, prompt)
    counts = np.zeros(12)
    for seed in range(DRAWS):
        counts[Chooser(Sampling(**options, seed=seed), prompt).choose(LOGITS)] += 1
    assert not counts[wanted == 0].any()
    kept = wanted > 0
    chi_square = ((counts[kept] - DRAWS * wanted[kept]) ** 2 / (DRAWS * wanted[kept])).sum()
    assert chi_square < 40.0  # 11 degrees of freedom: one in thirty thousand


def test_penalties_count_what_was_answered() -> None:
    flat = torch.zeros(4)
    drawn = Chooser(Sampling(temperature=0.0, presence_penalty=0.5, frequency_penalty=0.1), ())
    assert [drawn.choose(flat) for _ in range(6)] == [0, 1, 2, 3, 0, 1]
    assert [Chooser(Sampling(temperature=0.0), ()).choose(flat) for _ in range(2)] == [0, 0]


def test_only_what_is_allowed_is_drawn() -> None:
    allowed = bytes([0b0010_0100, 0b0000_1000])  # 2, 5 and 11
    drawn = {Chooser(Sampling(seed=seed), ()).choose(LOGITS, allowed) for seed in range(200)}
    assert drawn == {2, 5, 11}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"temperature": -1.0}, "temperature is -1.0; it lies between 0 and 100"),
        ({"top_p": 0.0}, "top_p is 0.0; it is above 0"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0; it is above 0"),
        ({"top_k": -1}, "top_k is -1; it is at least 0"),
        ({"seed": -1}, "seed is -1; it is at least 0"),
        ({"min_p": 1.5}, "min_p is 1.5"),
        ({"presence_penalty": 3.0}, "presence_penalty is 3.0"),
    ],
)
def test_what_means_nothing_is_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        Sampling(**options)


def test_text_is_held_back_while_it_may_become_a_stop() -> None:
    answer = Answer(lambda ids: bytes(ids), ["END", "NOW!"])
    assert [answer.push(index) for index in b"aEN"] == ["a", "", ""]
    assert answer.push(ord("N")) == "EN" and answer.push(ord("O")) == ""
    assert answer.push(ord("x")) == "NOx"
    assert [answer.push(index) for index in b"yEND"] == ["y", "", "", ""] and answer.stopped
    assert answer.finish() == ""


def test_half_a_character_is_never_told() -> None:
    answer = Answer(lambda ids: bytes(ids), [])
    assert [answer.push(index) for index in "é€".encode()] == ["", "é", "", "", "€"]
    assert answer.push(0xE2) == "" and answer.finish() == "\ufffd"

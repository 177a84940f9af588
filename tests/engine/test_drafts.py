"""Sampling with drafts against the exact distribution of what is sampled, on a vocabulary small enough to write out."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from engines import drawn

from riallm.engine.local import EngineOptions, LocalEngine
from riallm.engine.request import Request, Sampling
from riallm.models.llama import Llama, LlamaConfig
from riallm.nn.meta import TokenMeta

VOCAB, ANSWER, DRAWS = 5, 4, 4000


@pytest.fixture(scope="module")
def model() -> Llama:
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=128,
        qk_norm=True,
    )
    return drawn(config, seed=4)


def prompt() -> tuple[int, ...]:
    """Every pair of tokens stands in it, some of them often: whatever is drawn, something can be looked up."""
    pairs = [token for pair in itertools.product(range(VOCAB), repeat=2) for token in pair]
    return (*pairs, *[0, 1, 2] * 6)


@torch.inference_mode()
def exact(model: Llama, temperature: float) -> dict[tuple[int, ...], float]:
    """The probability of each answer: one pass over every one of them, with nothing drafted, cached or in pages."""
    before = prompt()
    answers = list(itertools.product(range(VOCAB), repeat=ANSWER))
    rows = torch.tensor([[*before, *answer] for answer in answers])
    logits = model.logits(model(rows, TokenMeta.plain(*rows.shape)).hidden[:, len(before) - 1 : -1])
    shares = (logits.double() / temperature).log_softmax(dim=-1).gather(2, torch.tensor(answers)[..., None])
    return dict(zip(answers, shares.sum(dim=(1, 2)).exp().tolist(), strict=True))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("lookahead", [0, 3])
def test_answers_are_drawn_as_the_model_says_with_drafts_and_without(model: Llama, lookahead: int) -> None:
    temperature = 0.8
    engine = LocalEngine(
        model,
        name="five",
        identity="five",
        decode=lambda ids: bytes(65 + index for index in ids),
        context=128,
        options=EngineOptions(kv_bytes=16 << 20, lookahead=lookahead, max_waiting=DRAWS),
    )
    counts = dict.fromkeys(itertools.product(range(VOCAB), repeat=ANSWER), 0)
    try:
        draws = [Sampling(temperature=temperature, seed=seed) for seed in range(DRAWS)]
        tickets = [engine.submit(Request(ids=prompt(), max_tokens=ANSWER, sampling=each)) for each in draws]
        for ticket in tickets:
            ids: list[int] = []
            while (piece := ticket.next(60.0)) is not None:
                ids += [token.id for token in piece.tokens]
                if piece.finish is not None:
                    break
            counts[tuple(ids)] += 1
        load = engine.load()
    finally:
        engine.close()
    assert (load.accepted_tokens > DRAWS // 10 and load.drafted_tokens > load.accepted_tokens) == bool(lookahead)
    # What is expected fewer than five times is counted together, as the test wants it.
    wanted = {answer: DRAWS * share for answer, share in exact(model, temperature).items()}
    often = [answer for answer, num in wanted.items() if num >= 5]
    cells = [(counts[answer], wanted[answer]) for answer in often]
    rest = sum(counts[answer] for answer in wanted if wanted[answer] < 5)
    cells.append((rest, DRAWS - sum(num for _, num in cells)))
    chi_square = sum((seen - num) ** 2 / num for seen, num in cells if num > 0)
    freedom = len(cells) - 1
    assert freedom > 50
    assert chi_square < freedom + 4 * math.sqrt(2 * freedom)  # beyond four standard deviations: one in ten thousand

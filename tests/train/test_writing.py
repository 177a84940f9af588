"""Memory attention alone: the document's aim by its formula, and saying again what was written."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from riallm.core.errors import UsageError
from riallm.data.tell_ask import TellAskConfig
from riallm.eval.probes.recall import batch
from riallm.models.episodes import Episodes
from riallm.models.rxt import RxT
from riallm.nn.memory_state import MemoryState
from riallm.nn.meta import TokenMeta
from riallm.recipes.tell_ask import model
from riallm.train.writing import Blended, Reconstructed

TASK = TellAskConfig(num_turns=4, min_turns=2, num_keys=8, num_values=8, num_fillers=4, max_live=4)


@pytest.fixture
def rxt() -> RxT:
    made = RxT(replace(model(hidden=32, layers=2, slots=TASK.max_tokens, vocab=TASK.vocab_size), trained_start=False))
    made.initialise(0)
    return made


@pytest.fixture
def data() -> Episodes:
    return replace(batch(TASK, 0, 4)[1], seed=7)


def test_the_document_s_weights() -> None:
    """90 % at first, then 50 % less 5 % a step."""
    assert [round(Blended().weight(at), 3) for at in (0, 1, 2, 6, 9, 20)] == [0.9, 0.45, 0.4, 0.2, 0.05, 0.05]


def test_the_aim_is_a_mean_of_what_was_held_and_what_is_new(rxt: RxT, data: Episodes) -> None:
    found = Blended(jitter=0.0)(rxt, data)
    memory, total, num = rxt.start(len(data.tokens), seed=7), torch.zeros(()), 0
    for at, weight in zip(range(data.tokens.shape[1]), (0.9, 0.45, 0.4, 0.35), strict=False):
        tokens, mask = data.tokens[:, at], data.mask[:, at]
        aim = (1 - weight) * memory.slots + weight * rxt.encode(tokens, mask)
        memory = rxt.end_turn(tokens, mask, memory)
        for row, real in enumerate(mask):
            for slot in real.nonzero()[:, 0].tolist():
                for layer in range(2):
                    total = (
                        total + 1 - F.cosine_similarity(memory.slots[layer, row, slot], aim[layer, row, slot], dim=0)
                    )
                    num += 1
    assert found.metrics["distance"] == pytest.approx(float(total.detach()) / num, rel=1e-4)
    assert float(found.terms["distance"].detach()) == pytest.approx(
        data.num_units * found.metrics["distance"], rel=1e-5
    )


def test_weights_and_noise_are_drawn_by_the_batch(rxt: RxT, data: Episodes) -> None:
    plain, jittered, noisy = (
        Blended(jitter=jitter, noise=noise)(rxt, data).metrics["distance"]
        for jitter, noise in ((0.0, 0.0), (0.15, 0.0), (0.0, 1.0))
    )
    assert 0 < abs(jittered - plain) < 0.1
    assert noisy > plain + 0.01


def test_jitter_moves_weight_by_no_more_than_it_says() -> None:
    """Seen where the memory held nothing but zeros and the new nothing but ones: the aim is the weight."""
    held, new = torch.zeros(1, 400, 2, 3), torch.ones(1, 400, 2, 3)
    aim = Blended()._aim(held, new, 1, torch.Generator().manual_seed(0))[0, :, 0, 0]
    assert 0.30 <= float(aim.min()) < 0.32 and 0.58 < float(aim.max()) <= 0.60


def gradient_of_first(rxt: RxT, data: Episodes, window: int | None) -> Tensor:
    """Of the aims of all later interactions, for what the encoder made of the first."""
    kept: list[Tensor] = []
    write = rxt.write

    def watched(encoded: Tensor, mask: Tensor, memory: MemoryState) -> MemoryState:
        if not kept:
            encoded = encoded.detach().requires_grad_()
            kept.append(encoded)
            return MemoryState(slots=write(encoded, mask, memory).slots)
        return write(encoded, mask, memory)

    rxt.write = watched  # type: ignore[method-assign]
    whole = Blended(window=window)(rxt, data).terms["distance"]
    kept[0].grad = None
    whole.backward()  # type: ignore[no-untyped-call]
    assert kept[0].grad is not None
    return kept[0].grad


def test_without_a_window_later_aims_reach_earlier_writes(rxt: RxT, data: Episodes) -> None:
    assert not torch.allclose(gradient_of_first(rxt, data, None), gradient_of_first(rxt, data, 1), atol=1e-6)


def test_as_many_slots_as_tokens_or_it_is_refused(rxt: RxT, data: Episodes) -> None:
    wider = batch(TASK, 0, 2)[1]
    wider = replace(wider, **{name: F.pad(getattr(wider, name), (0, 1)) for name in ("tokens", "mask", "answers")})
    with pytest.raises(UsageError, match="rows of 11 tokens, but 10 slots: this aim pairs each slot with a token"):
        Blended()(rxt, wider)


@pytest.mark.parametrize("delay", [0, 1, 9])
def test_each_interaction_is_said_again_with_the_memory_behind_it(rxt: RxT, data: Episodes, delay: int) -> None:
    found = Reconstructed(delay=delay)(rxt, data).terms["again"]
    total, num = torch.zeros(()), 0
    start = rxt.start(len(data.tokens), seed=7)
    for row in range(len(data.tokens)):
        memories = [start.rows([row])]
        for tokens, mask in zip(data.tokens[row], data.mask[row], strict=True):
            memories.append(rxt.end_turn(tokens[None], mask[None], memories[-1]))
        for at, (tokens, mask) in enumerate(zip(data.tokens[row], data.mask[row], strict=True)):
            own = tokens[mask][None]
            if not own.shape[1]:
                continue
            memory = memories[min(at + 1 + delay, len(memories) - 1)]
            logits = rxt.logits(rxt(own, TokenMeta.plain(*own.shape), rxt.turn(memory)).hidden)[0, :-1]
            total = total + F.cross_entropy(logits, own[0, 1:], reduction="sum")
            num += own.shape[1] - 1
    assert float(found.detach()) / data.num_units == pytest.approx(float(total.detach()) / num, rel=1e-5)

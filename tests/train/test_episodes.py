"""Memory-aware training: all interactions at once are one after the other, and sums are sums."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from riallm.data.tell_ask import TellAskConfig
from riallm.eval.probes.recall import ask, batch
from riallm.models.episodes import overheard
from riallm.models.rxt import RxT
from riallm.nn.memory_state import MemoryState
from riallm.nn.meta import TokenMeta
from riallm.recipes.tell_ask import TESTED, model, smoke, source
from riallm.train.episodes import FullHistory, MemoryAware, Overheard

TASK = TellAskConfig(num_turns=5, min_turns=2, num_keys=8, num_values=8, num_fillers=4, max_live=4)


@pytest.fixture
def rxt() -> RxT:
    made = RxT(model(hidden=32, layers=2, slots=4, vocab=TASK.vocab_size))
    made.initialise(0)
    return made


def one_after_the_other(rxt: RxT, *, memory: bool) -> Tensor:
    """The nats of all answers, interaction by interaction, conversation by conversation."""
    _, data = batch(TASK, 0, 4)
    found = []
    for tokens, mask, answers in zip(data.tokens, data.mask, data.answers, strict=True):
        state, history = rxt.start(), torch.empty((1, 0), dtype=torch.int64)
        for ids, real, answer in zip(tokens, mask, answers, strict=True):
            own = ids[real][None]
            if not own.shape[1]:
                continue
            if memory:
                logits = rxt.logits(rxt(own, TokenMeta.plain(*own.shape), rxt.turn(state)).hidden)[0]
                state = rxt.end_turn(own, torch.ones_like(own, dtype=torch.bool), state)
            else:
                history = torch.cat((history, own), dim=1)
                nothing = replace(rxt.turn(state, keep=False).reading, layers=(None,) * rxt.config.num_layers)
                turn = rxt.open_turn(state, nothing, keep=False)
                logits = rxt.logits(rxt(history, TokenMeta.plain(*history.shape), turn).hidden)[0, -own.shape[1] :]
            places = answer[real].nonzero()[:, 0]
            found.append(F.cross_entropy(logits[places - 1], own[0, places], reduction="sum"))
    return torch.stack(found).sum()


def gradient(rxt: RxT, loss: Tensor) -> Tensor:
    rxt.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in rxt.parameters() if p.grad is not None])


def test_all_at_once_is_one_after_the_other_gradients_included(rxt: RxT) -> None:
    data = batch(TASK, 0, 4)[1]
    at_once = MemoryAware()(rxt, data).terms["nats"]
    wanted = one_after_the_other(rxt, memory=True)
    assert torch.allclose(at_once, wanted, rtol=1e-5)
    assert torch.allclose(gradient(rxt, at_once), gradient(rxt, wanted), atol=2e-3)


def test_the_reader_of_the_whole_history_is_the_same_decoder_over_one_text(rxt: RxT) -> None:
    data = batch(TASK, 0, 4)[1]
    assert torch.allclose(FullHistory()(rxt, data).terms["nats"], one_after_the_other(rxt, memory=False), rtol=1e-5)


def test_sums_of_two_batches_are_the_sum_over_both(rxt: RxT) -> None:
    whole = batch(TASK, 0, 4)[1]
    parts = [batch(TASK, first, 2)[1] for first in (0, 2)]
    assert whole.num_units == sum(part.num_units for part in parts)
    summed = sum(MemoryAware()(rxt, part).terms["nats"] for part in parts)
    assert torch.allclose(MemoryAware()(rxt, whole).terms["nats"], torch.as_tensor(summed), rtol=1e-5)


def test_the_experts_terms_are_means_times_units(rxt: RxT) -> None:
    data = batch(TASK, 0, 4)[1]
    loss = MemoryAware(balance=0.5, z=0.0)(rxt, data)
    assert 0.9 < float(loss.terms["balance"].detach()) / data.num_units / 0.5 < 4.0
    assert float(loss.terms["z"].detach()) == 0.0
    assert 1.0 <= loss.metrics["max_load"] <= 4.0


def test_a_window_cuts_gradients_and_not_the_loss(rxt: RxT) -> None:
    data = batch(TASK, 0, 4)[1]
    whole, cut = (MemoryAware(window=window)(rxt, data).terms["nats"] for window in (None, 1))
    assert torch.allclose(whole, cut)
    assert not torch.allclose(gradient(rxt, whole), gradient(rxt, cut), atol=1e-4)


def test_a_window_leaves_the_start_to_learn(rxt: RxT) -> None:
    """What the second interaction says comes of the start by one write, which every window holds."""
    data = batch(TASK, 0, 4)[1]
    answers = torch.zeros_like(data.answers)
    answers[:, 1] = data.answers[:, 1]
    found = []
    for window in (None, 2, 1):
        gradient(rxt, MemoryAware(window=window)(rxt, replace(data, answers=answers)).terms["nats"])
        assert rxt.start_slots is not None and rxt.start_slots.grad is not None
        found.append(rxt.start_slots.grad)
    assert float(found[0].norm()) > 0.01
    for each in found[1:]:
        assert torch.allclose(each, found[0], atol=1e-5)


def test_a_start_that_is_drawn_is_another_one_in_each_batch_and_question(rxt: RxT) -> None:
    class Starting(RxT):
        seeds: ClassVar[list[int]] = []

        def start(self, num_rows: int = 1, *, seed: int = 0) -> MemoryState:
            self.seeds.append(seed)
            return super().start(num_rows, seed=seed)

    drawn = Starting(replace(rxt.config, trained_start=False))
    drawn.initialise(0)
    data = batch(TASK, 0, 4)[1]
    for objective in (MemoryAware(), Overheard()):
        told = [float(objective(drawn, replace(data, seed=seed)).terms["nats"].detach()) for seed in (0, 1, 0)]
        assert told[0] == told[2] != told[1]
    made = source(smoke(), 10, smoke().phases, stage=0)
    assert made(1).seed != made(2).seed
    Starting.seeds.clear()
    ask(drawn, TASK, num=12, rows=4)
    assert len(set(Starting.seeds)) == len(Starting.seeds) > 1


def test_the_joint_stage_hears_all_that_came_before_and_nothing_else(rxt: RxT) -> None:
    """Interaction by interaction, with the encoder's output of the earlier ones behind the slots of the start."""
    data = batch(TASK, 0, 4)[1]
    hidden, _ = overheard(rxt, data.tokens, data.mask)
    for row, (tokens, mask) in enumerate(zip(data.tokens, data.mask, strict=True)):
        start = rxt.start()
        heard = [start.slots]
        for at, (ids, real) in enumerate(zip(tokens, mask, strict=True)):
            own = ids[real][None]
            if not own.shape[1]:
                continue
            reading = rxt.reading(replace(start, slots=torch.cat(heard, dim=2)))
            alone = rxt(own, TokenMeta.plain(*own.shape), rxt.open_turn(start, reading, keep=False)).hidden[0]
            assert torch.allclose(hidden[row, at, real], alone, atol=1e-4)
            heard.append(rxt.encode(own, torch.ones_like(own, dtype=torch.bool)))


def test_stages_share_no_conversation_with_each_other_or_the_questions() -> None:
    trial = smoke(seed=3)
    tokens = [source(trial, 10, trial.phases, stage=stage)(4).tokens for stage in (0, 1)]
    asked = batch(replace(trial.task, seed=TESTED + 3), 4 * trial.rows, trial.rows)[1].tokens
    assert not torch.equal(tokens[0], tokens[1])
    assert not torch.equal(tokens[1][:, :4], asked[:, :4])

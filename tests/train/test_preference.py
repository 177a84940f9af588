"""Preferences: scored with the memory from before, written afterwards, the first interaction included."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from riallm.core.errors import UsageError
from riallm.data.tell_ask import TellAskConfig, conversation, interaction
from riallm.data.tell_ask_rejected import rejected
from riallm.models.episodes import Episodes, Interaction, written
from riallm.models.reward import RewardModel
from riallm.models.rxt import RxT
from riallm.nn.memory_state import MemoryState
from riallm.nn.meta import TokenMeta
from riallm.recipes.tell_ask import model
from riallm.train.answers import before, frozen, judged, picked
from riallm.train.dialogues import Pair, preferences
from riallm.train.loop import Run, Step, TrainConfig
from riallm.train.optim import OptimiserConfig
from riallm.train.preference import DirectPreference, Preferences, PreferredReward
from riallm.train.rewards import Learned, Said

TASK = TellAskConfig(num_turns=5, min_turns=3, num_keys=8, num_values=8, num_fillers=4, max_live=3, ask=0.6)


@pytest.fixture
def rxt() -> RxT:
    return made(0)


def made(seed: int) -> RxT:
    rxt = RxT(model(hidden=32, layers=2, slots=4, vocab=TASK.vocab_size))
    rxt.initialise(seed)
    return rxt


def rows(first: int, num: int) -> list[list[Pair]]:
    """Every question has a rejected answer; those of one conversation in two a neutral one, longer than both."""
    found = []
    for number in range(first, first + num):
        turns = conversation(TASK, number)
        wrong = rejected(TASK, turns, number)
        pairs = []
        for turn, worse in zip(turns, wrong, strict=True):
            right = Interaction(*interaction(turn))
            other = None if worse is None else Interaction(*interaction(replace(turn, answer=(worse,))))
            middle = Interaction(*interaction(replace(turn, answer=(7, 7, 7)))) if other and number % 2 else None
            pairs.append(Pair(right, other, middle))
        found.append(pairs)
    return found


def batch(first: int = 0, num: int = 4, seed: int = 0) -> Preferences:
    return preferences(rows(first, num), num_tokens=TASK.max_tokens, seed=seed)


def by_hand(rxt: RxT, conversations: list[list[Pair]], kind: str) -> Tensor:
    """Log-probabilities of the answers of a kind, one after the other: scored, then the accepted one is written."""
    found = []
    for pairs in conversations:
        state: MemoryState = rxt.start()
        for pair in pairs:
            one: Interaction | None = getattr(pair, kind)
            if one is not None and (kind == "neutral" or pair.rejected is not None):
                ids = torch.tensor([one.ids])
                logits = rxt.logits(rxt(ids, TokenMeta.plain(*ids.shape), rxt.turn(state)).hidden)[0]
                places = torch.arange(one.answer_at, len(one.ids))
                found.append(logits[places - 1].log_softmax(dim=-1)[torch.arange(len(places)), ids[0, places]].sum())
            ids = torch.tensor([pair.accepted.ids])
            state = rxt.end_turn(ids, torch.ones_like(ids, dtype=torch.bool), state)
    return torch.stack(found)


def gradient(rxt: RxT, loss: Tensor) -> dict[str, Tensor]:
    rxt.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in rxt.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_formula_one_interaction_after_the_other(rxt: RxT, smoothing: float) -> None:
    reference = frozen(made(5))
    loss = DirectPreference(reference=reference, beta=0.3, smoothing=smoothing, balance=0.0, z=0.0)(rxt, batch())
    ours, theirs = (
        {kind: by_hand(each, rows(0, 4), kind) for kind in ("accepted", "rejected")} for each in (rxt, reference)
    )
    gained = {kind: ours[kind] - theirs[kind].detach() for kind in ours}
    margin = 0.3 * (gained["accepted"] - gained["rejected"])
    wanted = -((1 - smoothing) * F.logsigmoid(margin) + smoothing * F.logsigmoid(-margin)).sum()
    assert torch.allclose(loss.terms["nats"], wanted, rtol=1e-4)
    found, hand = gradient(rxt, loss.terms["nats"]), gradient(rxt, wanted)
    assert all(torch.allclose(found[name], hand[name], atol=2e-4) for name in hand)
    assert any(name.startswith("memory_attention") and float(hand[name].abs().max()) > 0 for name in hand)


def test_against_itself_every_pair_costs_a_coin(rxt: RxT) -> None:
    data = batch()
    loss = DirectPreference(reference=frozen(rxt), balance=0.0, z=0.0)(rxt, data)
    assert float(loss.terms["nats"].detach()) == pytest.approx(data.num_units * math.log(2), rel=1e-5)


def test_a_start_that_is_drawn_is_one_for_all_of_a_batch_and_another_one_in_the_next() -> None:
    config = replace(made(0).config, trained_start=False)
    drawn, judge, other = RxT(config), RewardModel(config), RxT(config)
    for seed, each in enumerate((drawn, judge, other)):
        each.initialise(seed)
    itself, another = (DirectPreference(reference=frozen(each), balance=0.0, z=0.0) for each in (drawn, other))
    coins = batch().num_units * math.log(2)
    assert float(itself(drawn, batch(seed=1)).terms["nats"].detach()) == pytest.approx(coins, rel=1e-5)
    for trained, objective in ((drawn, another), (judge, PreferredReward())):
        told = [float(objective(trained, batch(seed=seed)).terms["nats"].detach()) for seed in (0, 1, 0)]
        assert told[0] == told[2] != told[1]


def test_an_answer_is_scored_before_it_is_written_and_the_first_one_is_written_too(rxt: RxT) -> None:
    """Another accepted answer leaves the odds of its rejected one, and moves all later ones."""
    data = batch()
    data = replace(data, pairs=data.accepted.mask.any(dim=-1), rejected=data.accepted)
    objective = DirectPreference(reference=frozen(made(5)), balance=0.0, z=0.0)

    def odds(accepted: Episodes) -> Tensor:
        gained, _ = objective._gained(rxt, replace(data, accepted=accepted))
        found = torch.zeros(data.pairs.shape)
        found[data.pairs] = gained["rejected"].detach()
        return found

    first = data.accepted.answers[0, 0].nonzero()[0, 0]
    changed = data.accepted.tokens.clone()
    changed[0, 0, first] = TASK.first_value
    before_it, after_it = odds(data.accepted), odds(replace(data.accepted, tokens=changed))
    assert torch.equal(before_it[:, 0], after_it[:, 0])
    assert not torch.isclose(before_it[0, 1:][data.pairs[0, 1:]], after_it[0, 1:][data.pairs[0, 1:]]).any()
    assert torch.allclose(before_it[1:], after_it[1:], atol=1e-5)


def test_neutral_answers_are_held_where_they_were(rxt: RxT) -> None:
    reference = frozen(made(5))
    loss = DirectPreference(reference=reference, anchor=0.1, balance=0.0, z=0.0)(rxt, batch())
    moved = by_hand(rxt, rows(0, 4), "neutral") - by_hand(reference, rows(0, 4), "neutral")
    assert 0 < len(moved) < batch().num_units
    assert torch.allclose(loss.terms["anchor"], 0.1 * moved.abs().sum(), rtol=1e-4)
    without = replace(batch(), neutral=None, anchors=None)
    assert "anchor" not in DirectPreference(reference=reference, balance=0.0, z=0.0)(rxt, without).terms
    with pytest.raises(UsageError, match="no neutral"):
        DirectPreference(reference=reference, anchor=0.1)(rxt, without)
    some = [[Pair(pair.accepted, pair.rejected) for pair in row] for row in rows(0, 4)]
    none = preferences(some, num_tokens=TASK.max_tokens)
    told = DirectPreference(reference=reference, anchor=0.1, balance=0.0, z=0.0)(rxt, none)
    assert "anchor" not in told.terms, "a batch in which no conversation has one"
    assert torch.allclose(told.terms["nats"], loss.terms["nats"])


def test_normalised_is_a_token_s_mean(rxt: RxT) -> None:
    reference = frozen(made(5))
    plain, mean = (
        DirectPreference(reference=reference, normalised=each, anchor=1.0, balance=0.0, z=0.0)(rxt, batch())
        for each in (False, True)
    )
    assert mean.metrics["neutral"] == pytest.approx(plain.metrics["neutral"] / 4, rel=1e-4)  # three tokens and the end
    assert mean.metrics["accepted"] == pytest.approx(plain.metrics["accepted"] / 2, rel=1e-4)


def test_nothing_to_prefer_and_half_of_it_wrong_are_refused(rxt: RxT) -> None:
    with pytest.raises(UsageError, match="nothing to prefer"):
        preferences([[Pair(pair.accepted) for pair in row] for row in rows(0, 2)], num_tokens=TASK.max_tokens)
    with pytest.raises(UsageError, match="below one half"):
        DirectPreference(reference=rxt, smoothing=0.5)


# The reward model


def judge(seed: int = 3) -> RewardModel:
    found = RewardModel.of(made(seed))
    with torch.no_grad():
        found.reward_head.weight.normal_(generator=torch.Generator().manual_seed(seed))
    return found


def judged_by_hand(found: RewardModel, conversations: list[list[Pair]], kind: str) -> Tensor:
    rewards = []
    for pairs in conversations:
        state = found.start()
        for pair in pairs:
            if pair.rejected is not None:
                ids = torch.tensor([getattr(pair, kind).ids])
                rewards.append(found.rewards(found(ids, TokenMeta.plain(*ids.shape), found.turn(state)).hidden[0, -1]))
            ids = torch.tensor([pair.accepted.ids])
            state = found.end_turn(ids, torch.ones_like(ids, dtype=torch.bool), state)
    return torch.stack(rewards)


def test_the_reward_model_s_loss_is_that_of_bradley_and_terry() -> None:
    found = judge()
    loss = PreferredReward(balance=0.0, z=0.0)(found, batch())
    better, worse = (judged_by_hand(found, rows(0, 4), kind) for kind in ("accepted", "rejected"))
    assert torch.allclose(loss.terms["nats"], -F.logsigmoid(better - worse).sum(), rtol=1e-4)
    assert loss.metrics["right"] == pytest.approx(float((better > worse).float().mean()))


def test_a_reward_model_thinks_the_same_of_all_answers_at_first_and_learns_which_are_better(tmp_path: Path) -> None:
    found = RewardModel.of(made(0))
    data = batch(0, 8)
    assert float(PreferredReward(balance=0.0, z=0.0)(found, data).terms["nats"].detach()) == pytest.approx(
        data.num_units * math.log(2)
    )
    config = TrainConfig(max_steps=30, ema=0.0, optimiser=OptimiserConfig(kind="adamw", lr=0.01, cautious=False))
    told: list[Step] = []
    Run(found, lambda number: data, PreferredReward(), config, tmp_path, on_step=told.append).train()
    assert told[-1].metrics["right"] > 0.95


def test_a_learned_reward_reads_the_memory_from_before_the_answer() -> None:
    found = judge()
    data = batch()
    said, right = picked(data.rejected, data.pairs), picked(data.accepted, data.pairs)
    rewards = Learned(model=found)(Said(lived=data.accepted, places=data.pairs, said=said, right=right, seed=0))
    assert torch.allclose(rewards, judged_by_hand(found, rows(0, 4), "rejected").detach(), atol=1e-4)
    memories = written(found, data.accepted.tokens, data.accepted.mask)
    late = judged(found, before(memories[1:], data.pairs), said)[0].detach()
    assert not torch.isclose(rewards, late).any()


def test_the_reference_and_its_weights_stay_as_they_are(rxt: RxT) -> None:
    reference = frozen(rxt)
    kept = copy.deepcopy(reference.state_dict())
    loss = DirectPreference(reference=reference)(rxt, batch())
    torch.stack(tuple(loss.terms.values())).sum().backward()
    with torch.no_grad():
        rxt.lm_head.weight.add_(1.0)
    assert all(torch.equal(value, kept[name]) for name, value in reference.state_dict().items())
    assert all(p.grad is None for p in reference.parameters())

"""Memory reinforcement learning: the gradient is the policy's, through the writes, and the reference is its own."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from riallm.core.errors import UsageError
from riallm.data.tell_ask import END, TellAskConfig, conversation, interaction
from riallm.models.episodes import Episodes, Interaction, written
from riallm.models.reward import RewardModel
from riallm.models.rxt import RxT
from riallm.nn.meta import TokenMeta
from riallm.recipes.tell_ask import model
from riallm.train.answers import before, frozen, judged, scored
from riallm.train.dialogues import Question, quiz, repeated
from riallm.train.loop import Run, Step, TrainConfig
from riallm.train.objective import Loss
from riallm.train.optim import OptimiserConfig
from riallm.train.reinforce import MemoryReinforcement, Quiz, advantages
from riallm.train.rewards import Learned, Said, Shuffled

TASK = TellAskConfig(num_turns=4, min_turns=3, num_keys=8, num_values=8, num_fillers=4, max_live=2, ask=0.6)


@pytest.fixture
def rxt() -> RxT:
    made = RxT(model(hidden=32, layers=2, slots=4, vocab=TASK.vocab_size))
    made.initialise(0)
    with torch.no_grad():  # odds that are neither even nor sure
        made.lm_head.weight.mul_(0.3)
        made.lm_head.bias[END] = 2.0
    return made


def other(rxt: RxT) -> RxT:
    made = copy.deepcopy(rxt)
    made.initialise(7)
    return frozen(made)


def questions(number: int, *, rows: int = 4, samples: int = 3) -> Quiz:
    turns = [conversation(TASK, number * rows + row) for row in range(rows)]
    made = [
        [Question(Interaction(*interaction(turn)), turn.kind in ("ask", "untold"), turn.kind == "ask") for turn in each]
        for each in turns
    ]
    return quiz(made, num_tokens=TASK.max_tokens, samples=samples, end=END, seed=number)


def even(said: Said) -> Tensor:
    """A reward that every model earns now and then."""
    return (said.said.tokens.sum(dim=-1) % 2).flatten().float()


def plain(rxt: RxT) -> MemoryReinforcement:
    """The policy's term alone, with the memory alone."""
    return MemoryReinforcement(reference=frozen(rxt), reward=even, controls=(), divergence=0.0, balance=0.0, z=0.0)


def kept(loss: Loss, name: str, rows: list[int] | None = None) -> Episodes:
    """Conversations or answers that a loss carries, or some rows of them."""
    assert loss.carry is not None
    chosen = slice(None) if rows is None else rows
    tokens, mask, answers = (loss.carry[f"{name}.{part}"][chosen] for part in ("tokens", "mask", "answers"))
    return Episodes(tokens=tokens, mask=mask, answers=answers)


def one_after_the_other(rxt: RxT, lived: Episodes, places: Tensor) -> list[Tensor]:
    """The log-probabilities of the answers at `places`, one after the other, each read before it is written."""
    found = []
    for tokens, mask, answers, asked in zip(lived.tokens, lived.mask, lived.answers, places, strict=True):
        state = rxt.start()
        for ids, real, answer, ask in zip(tokens, mask, answers, asked, strict=True):
            own = ids[real][None]
            if not own.shape[1]:
                continue
            if ask:
                logits = rxt.logits(rxt(own, TokenMeta.plain(*own.shape), rxt.turn(state)).hidden)[0]
                at = answer[real].nonzero()[:, 0]
                found.append(logits[at - 1].log_softmax(dim=-1)[torch.arange(len(at)), own[0, at]])
            state = rxt.end_turn(own, torch.ones_like(own, dtype=torch.bool), state)
    return found


def gradient(rxt: RxT, loss: Tensor) -> dict[str, Tensor]:
    rxt.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in rxt.named_parameters() if p.grad is not None}


def test_the_first_update_is_the_policy_s_gradient_through_the_writes(rxt: RxT) -> None:
    batch = questions(0)
    loss = plain(rxt)(rxt, batch)
    assert loss.carry is not None
    lived = kept(loss, "lived")
    each = one_after_the_other(rxt, lived, batch.asked.repeat_interleave(3, dim=0))
    worth = loss.carry["memory.worth"]
    assert len(worth) == len(each) == batch.num_units
    assert float(worth.abs().max()) > 0.5
    wanted = -torch.stack([log_probs.sum() * one for log_probs, one in zip(each, worth, strict=True)]).sum()
    ours, theirs = gradient(rxt, loss.terms["policy"]), gradient(rxt, wanted)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-4) for name in theirs)
    written = [name for name in theirs if name.startswith(("memory_attention", "encoder"))]
    assert written and sum(float(theirs[name].abs().sum()) for name in written) > 0


def test_advantages_are_beside_the_other_samples_and_count_what_comes_of_them() -> None:
    asked = torch.tensor([[False, True, False, True]]).repeat(3, 1)
    rewards = torch.tensor([[9.0, 1.0, 9.0, 0.0], [9.0, 0.0, 9.0, 1.0], [9.0, 0.0, 9.0, 0.0]])
    alone = advantages(rewards, asked, samples=3, discount=0.0)
    assert torch.allclose(alone[:, 1], torch.tensor([1.0, -0.5, -0.5]))
    assert torch.allclose(alone[:, 3], torch.tensor([-0.5, 1.0, -0.5]))
    whole = advantages(rewards, asked, samples=3, discount=0.5)
    assert torch.allclose(whole[:, 1], torch.tensor([0.75, 0.0, -0.75]))  # 1, 0.5 and 0, each less the others' mean
    assert torch.equal(whole[:, [0, 2]], torch.zeros(3, 2))
    groups = advantages(
        rewards.repeat(2, 1) + torch.tensor([[0.0]] * 3 + [[5.0]] * 3), asked.repeat(2, 1), samples=3, discount=0.5
    )
    assert torch.allclose(groups[:3], groups[3:], atol=1e-5)


def test_what_is_rewarded_becomes_likelier_and_a_dealt_out_reward_does_nothing_like_it(
    rxt: RxT, tmp_path: Path
) -> None:
    value = TASK.first_value

    def says(said: Said) -> Tensor:
        first = said.said.answers.int().argmax(dim=-1, keepdim=True)
        return (said.said.tokens.gather(-1, first) == value).flatten().float()

    config = TrainConfig(
        max_steps=12, ema=0.0, optimiser=OptimiserConfig(kind="adamw", lr=0.03, weight_decay=0.0, cautious=False)
    )
    shares = {}
    for name, reward in (("rewarded", says), ("dealt out", Shuffled(of=says))):
        trained, told = copy.deepcopy(rxt), list[Step]()
        with torch.no_grad():
            trained.lm_head.weight.zero_()
        objective = MemoryReinforcement(
            reference=frozen(trained), reward=reward, controls=(), metrics={"says": says}, divergence=0.0
        )
        source = repeated(lambda number: questions(number, rows=2, samples=12), updates=1)
        Run(trained, source, objective, config, tmp_path / name, on_step=told.append).train()
        shares[name] = (told[0].metrics["memory.says"], told[-1].metrics["memory.says"])
    assert shares["rewarded"][0] < 0.15 and shares["rewarded"][1] > 0.6
    assert shares["dealt out"][1] < 0.3


def test_being_right_without_the_memory_costs(rxt: RxT) -> None:
    """A control's samples have the worth of their reward with the sign turned, and gradients make them less likely."""
    batch = questions(0)
    objective = replace(plain(rxt), controls=("reset",))
    loss, less = objective(rxt, batch), replace(objective, penalty=0.0)(rxt, batch)
    assert loss.carry is not None and less.carry is not None
    rewards, worth = loss.carry["reset.reward"], loss.carry["reset.worth"]
    assert float(worth[rewards == 1.0].min()) < 0.0 < float(worth[rewards == 0.0].max())
    assert float(worth[rewards == 1.0].max()) <= 0.0
    assert torch.equal(loss.carry["memory.worth"], less.carry["memory.worth"])
    gained = gradient(rxt, loss.terms["policy"] - less.terms["policy"])
    right = [row for row, one in enumerate(worth.tolist()) if one < 0]
    said = kept(loss, "reset", right)

    def likely() -> float:
        each = one_after_the_other(rxt, said, torch.ones(len(right), 1, dtype=torch.bool))
        return float(torch.stack([one.sum() for one in each]).sum().detach())

    before = likely()
    with torch.no_grad():
        for name, parameter in rxt.named_parameters():
            if name in gained:
                parameter.sub_(0.01 * gained[name])
    assert likely() < before


def test_controls_answer_from_no_memory_and_from_another_s(rxt: RxT) -> None:
    """Where slots alone decide what is said: the memory of the batch at hand, of nobody, of the one before."""
    batch = questions(0, rows=2, samples=2)
    loss = replace(plain(rxt), controls=("reset", "swap"))(rxt, batch)
    assert {name.split(".")[0] for name in loss.carry or ()} == {"lived", "memory", "reset", "swap"}
    num = int(batch.told.sum()) * 2
    assert all(len((loss.carry or {})[f"{name}.reward"]) == num for name in ("reset", "swap"))
    with pytest.raises(UsageError, match="no other to swap"):
        MemoryReinforcement(reference=frozen(rxt))(rxt, questions(0, rows=1))


def test_the_reference_remembers_the_same_conversations_by_its_own_weights(rxt: RxT) -> None:
    batch, reference = questions(0), other(rxt)
    objective = MemoryReinforcement(reference=reference, reward=even, controls=(), divergence=0.5, entropy=0.25)
    MemoryReinforcement(reference=reference, reward=even, controls=())(rxt, questions(3))  # leaves no trace in it
    loss = objective(rxt, batch)
    assert loss.carry is not None
    lived = kept(loss, "lived")
    places = batch.asked.repeat_interleave(3, dim=0)
    ours, theirs = (torch.cat(one_after_the_other(each, lived, places)) for each in (rxt, reference))
    gap = (theirs - ours).detach()
    assert float(loss.terms["kl"].detach()) == pytest.approx(0.5 * float((gap.exp() - gap - 1).sum()), rel=1e-3)
    same = MemoryReinforcement(reference=frozen(rxt), reward=even, controls=())(rxt, batch)
    assert float(same.terms["kl"].detach()) == pytest.approx(0.0, abs=1e-5)


def test_a_start_that_is_drawn_is_one_for_all_of_a_batch_and_another_one_in_the_next(rxt: RxT) -> None:
    """Sampling, old odds, the loss, controls, reference and reward model: else no odds belong to what was drawn."""
    config = replace(rxt.config, trained_start=False)
    drawn, judge = RxT(config), RewardModel(config)
    drawn.load_state_dict(rxt.state_dict(), strict=False)
    judge.initialise(3)
    objective = replace(plain(drawn), controls=("reset",))
    learned = replace(objective, reward=Learned(model=judge))
    batch = replace(questions(0), seed=1)
    first = objective(drawn, batch)
    assert first.carry is not None
    again, late = (objective(drawn, replace(batch, rolled=first.carry, seed=seed)) for seed in (1, 2))
    assert float(again.terms["policy"].detach()) == float(first.terms["policy"].detach())
    assert float(late.terms["policy"].detach()) != float(first.terms["policy"].detach())
    assert all(each.metrics["kl"] == pytest.approx(0.0, abs=1e-6) for each in (first, late))
    for seed in (1, 2):
        loss = learned(drawn, replace(batch, seed=seed))
        assert loss.carry is not None
        lived, start = kept(loss, "lived"), drawn.start(12, seed=seed)
        memories = written(judge, lived.tokens, lived.mask, seed=seed)
        places = batch.asked.repeat_interleave(3, dim=0)
        wanted = judged(judge, before(memories, places), kept(loss, "memory"))[0]
        assert torch.allclose(loss.carry["memory.reward"], wanted.detach(), atol=1e-5)
        places = batch.told.repeat_interleave(3, dim=0)
        odds = scored(drawn, before([start] * places.shape[1], places), kept(loss, "reset")).log_probs
        assert torch.allclose(loss.carry["reset.old"], odds.detach(), atol=1e-5)


def test_entropy_is_a_sum_over_tokens_and_divided_by_no_length(rxt: RxT) -> None:
    with torch.no_grad():
        rxt.lm_head.weight.zero_()
        rxt.lm_head.bias.zero_()
    loss = MemoryReinforcement(reference=frozen(rxt), reward=even, controls=(), entropy=0.25)(rxt, questions(0))
    assert loss.carry is not None
    num = int(loss.carry["memory.answers"].sum())
    assert num > len(loss.carry["memory.reward"])
    wanted = -0.25 * num * math.log(TASK.vocab_size)
    assert float(loss.terms["entropy"].detach()) == pytest.approx(wanted, rel=1e-5)


def test_nothing_more_is_gained_beyond_the_clip(rxt: RxT) -> None:
    batch = questions(0)
    objective = replace(plain(rxt), clip=0.2)
    first = objective(rxt, batch)
    assert first.carry is not None
    worth = first.carry["memory.worth"]
    rows = first.carry["memory.answers"].nonzero()[:, 0]
    up = torch.where(worth[rows] > 0, -1.0, 1.0)  # likelier by now where that was good, less likely where it was not
    moved = objective(rxt, replace(batch, rolled={**first.carry, "memory.old": first.carry["memory.old"] + up}))
    assert sum(float(each.abs().sum()) for each in gradient(rxt, moved.terms["policy"]).values()) == 0.0
    wanted = -float((torch.where(worth > 0, 1.2, 0.8) * worth)[rows].sum())
    assert float(moved.terms["policy"].detach()) == pytest.approx(wanted, rel=1e-5)
    assert moved.metrics["clipped"] == 1.0
    back = objective(rxt, replace(batch, rolled={**first.carry, "memory.old": first.carry["memory.old"] - up}))
    assert sum(float(each.abs().sum()) for each in gradient(rxt, back.terms["policy"]).values()) > 0.0


def test_the_last_interaction_of_the_last_conversation_counts(rxt: RxT) -> None:
    batch = questions(0)
    last = batch.given.mask[-1].any(dim=-1).nonzero().max()
    alone = torch.zeros_like(batch.asked)
    alone[-1, last] = True
    batch = replace(batch, asked=alone, told=alone & batch.told, samples=12)
    loss = plain(rxt)(rxt, batch)
    assert loss.carry is not None and len(loss.carry["memory.worth"]) == batch.num_units == 12
    assert float(loss.carry["memory.worth"].abs().max()) > 0
    assert sum(float(each.abs().sum()) for each in gradient(rxt, loss.terms["policy"]).values()) > 0.0


def test_a_run_that_is_stopped_amid_its_samples_goes_on_bit_for_bit(rxt: RxT, tmp_path: Path) -> None:
    config = TrainConfig(max_steps=6, accumulate=2, ema=0.0, optimiser=OptimiserConfig(kind="adamw", lr=0.01))

    def start(folder: Path) -> Run[Quiz]:
        trained = copy.deepcopy(rxt)
        source = repeated(lambda number: questions(number, rows=2), updates=3, accumulate=2)
        return Run(trained, source, MemoryReinforcement(reference=frozen(rxt), reward=even), config, folder)

    class Stop(Exception):
        pass

    def stop(step: Step) -> None:
        if step.step == 4:  # the second of three updates by the same samples comes next
            first.save()
        if step.step == 5:
            raise Stop

    whole, first = start(tmp_path / "whole"), start(tmp_path / "parts")
    whole.train()
    first.on_step = stop
    with pytest.raises(Stop):
        first.train()
    second = start(tmp_path / "parts")
    assert second.step == 4 and second.carry
    second.train()
    ours, theirs = (dict(each.model.named_parameters()) for each in (second, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_same_samples_serve_so_many_updates(rxt: RxT) -> None:
    source = repeated(questions, updates=2, accumulate=2)
    drawn = {"x": torch.ones(1)}
    seeds = [source.made(number, drawn).seed for number in range(8)]
    assert seeds == [0, 1, 0, 1, 2, 3, 2, 3]
    assert [source.made(number, drawn).rolled is not None for number in range(8)] == [False, False, True, True] * 2


def test_a_quiz_that_asks_nothing_or_has_one_sample_is_refused() -> None:
    batch = questions(0)
    with pytest.raises(UsageError, match="at least 2"):
        replace(batch, samples=1)
    with pytest.raises(UsageError, match="at least one"):
        replace(batch, asked=torch.zeros_like(batch.asked), told=torch.zeros_like(batch.told))
    with pytest.raises(UsageError, match="among the asked"):
        replace(batch, told=~batch.asked)

"""What every objective of the reinforcement and preference stages keeps to, as those of `test_objectives` do."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from riallm.data.tell_ask import END, TellAskConfig, conversation, interaction
from riallm.data.tell_ask_rejected import rejected
from riallm.models.episodes import Episodes, Interaction
from riallm.models.reward import RewardModel
from riallm.models.rxt import RxT
from riallm.recipes.tell_ask import model
from riallm.train.answers import frozen
from riallm.train.dialogues import Pair, Question, preferences, quiz
from riallm.train.objective import Objective
from riallm.train.preference import DirectPreference, Preferences, PreferredReward
from riallm.train.reinforce import MemoryReinforcement, Quiz
from riallm.train.rewards import Learned

TASK = TellAskConfig(num_turns=4, min_turns=2, num_keys=8, num_values=8, num_fillers=4, max_live=3, ask=0.6)


def rxt(seed: int = 0) -> RxT:
    made = RxT(model(hidden=32, layers=2, slots=4, vocab=TASK.vocab_size))
    made.initialise(seed)
    with torch.no_grad():
        made.lm_head.weight.mul_(0.3)
        made.lm_head.bias[END] = 2.0
    return made


def judge() -> RewardModel:
    made = RewardModel.of(rxt(2))
    with torch.no_grad():
        made.reward_head.weight.normal_(generator=torch.Generator().manual_seed(2))
    return made


def quizzed(first: int = 0, num: int = 4) -> Quiz:
    rows = [
        [
            Question(Interaction(*interaction(turn)), turn.kind in ("ask", "untold"), turn.kind == "ask")
            for turn in conversation(TASK, number)
        ]
        for number in range(first, first + num)
    ]
    return quiz(rows, num_tokens=TASK.max_tokens, samples=3, end=END, seed=first)


def preferred(first: int = 0, num: int = 4) -> Preferences:
    rows = []
    for number in range(first, first + num):
        turns = conversation(TASK, number)
        pairs = []
        for turn, wrong in zip(turns, rejected(TASK, turns, number), strict=True):
            worse = None if wrong is None else Interaction(*interaction(replace(turn, answer=(wrong,))))
            pairs.append(Pair(Interaction(*interaction(turn)), worse, worse))
        rows.append(pairs)
    return preferences(rows, num_tokens=TASK.max_tokens)


@dataclass(frozen=True)
class Case:
    objective: Objective[Any]
    batch: Callable[..., Any]
    model: Callable[[], RxT] = rxt


REFERENCE = frozen(rxt(5))
CASES = {
    "reinforcement": Case(MemoryReinforcement(reference=REFERENCE, entropy=0.01), quizzed),
    "feedback": Case(MemoryReinforcement(reference=REFERENCE, reward=Learned(model=judge())), quizzed),
    "preference": Case(DirectPreference(reference=REFERENCE), preferred),
    "preference, anchored": Case(DirectPreference(reference=REFERENCE, anchor=0.1, normalised=True), preferred),
    "reward model": Case(PreferredReward(), preferred, judge),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def padded(data: Episodes, more: int) -> Episodes:
    """Other ids where there is no token, rows that are longer, and an interaction that nobody has."""

    def wide(tensor: torch.Tensor, value: int) -> torch.Tensor:
        return F.pad(tensor, (0, more, 0, 1), value=value)

    tokens = torch.where(data.mask, data.tokens, 7)
    return Episodes(tokens=wide(tokens, 5), mask=wide(data.mask, 0), answers=wide(data.answers, 0))


def test_the_same_batch_gives_the_same_loss_and_nothing_is_kept(case: Case) -> None:
    made, data = case.model(), case.batch()
    kept = [copy.deepcopy(each.state_dict()) for each in (made, REFERENCE)]
    units = data.num_units
    one, other = case.objective(made, data), case.objective(made, data)
    assert all(torch.equal(one.terms[name], other.terms[name]) for name in one.terms)
    assert one.metrics == other.metrics and all(math.isfinite(value) for value in one.metrics.values())
    assert data.num_units == units > 0
    for before, each in zip(kept, (made, REFERENCE), strict=True):
        after = each.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(not tensor.requires_grad for tensor in (one.carry or {}).values())


def test_padding_changes_nothing(case: Case) -> None:
    made, data = case.model(), case.batch()
    if isinstance(data, Quiz):  # a longer row has room for longer answers
        more = [F.pad(each, (0, 1)) for each in (data.asked, data.told)]
        filled: Any = replace(data, given=padded(data.given, 0), asked=more[0], told=more[1], facts=None)
    else:
        kinds = {name: padded(getattr(data, name), 3) for name in ("accepted", "rejected", "neutral")}
        places = {name: F.pad(getattr(data, name), (0, 1)) for name in ("pairs", "anchors")}
        filled = replace(data, **kinds, **places)
    wanted, found = case.objective(made, data), case.objective(made, filled)
    assert filled.num_units == data.num_units
    for name, term in wanted.terms.items():
        assert torch.allclose(found.terms[name], term, rtol=1e-3, atol=1e-4), name


def test_weights_get_gradients_that_are_numbers_and_others_none(case: Case) -> None:
    made = case.model()
    torch.stack(tuple(case.objective(made, case.batch()).terms.values())).sum().backward()  # type: ignore[no-untyped-call]
    grads = {name: p.grad for name, p in made.named_parameters() if p.grad is not None}
    assert all(bool(torch.isfinite(grad).all()) for grad in grads.values())
    moved = {name.split(".")[0] for name, grad in grads.items() if float(grad.abs().sum()) > 0}
    assert moved >= {"encoder", "memory_attention", "layers", "embed_tokens"}
    assert all(p.grad is None for p in REFERENCE.parameters())
    reward = getattr(case.objective, "reward", None)
    if isinstance(reward, Learned):
        assert all(p.grad is None for p in reward.model.parameters())


@pytest.mark.parametrize("name", ["preference", "preference, anchored", "reward model"])
def test_a_pair_is_worth_the_same_in_any_company(name: str) -> None:
    case = CASES[name]
    made = case.model()
    whole = case.objective(made, case.batch(0, 4)).terms
    parts = [case.objective(made, case.batch(first, 2)).terms for first in (0, 2)]
    for term in set(whole) - {"balance", "z"}:
        assert torch.allclose(whole[term], parts[0][term] + parts[1][term], rtol=1e-4), term

"""Roll-outs: side by side is one after the other, what was said is remembered, and the odds are the model's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from riallm.data.tell_ask import ANSWER, BEGIN, END, QUERY, TellAskConfig
from riallm.eval.probes.recall import batch
from riallm.models.episodes import Episodes, Interaction, decoded, episodes, written
from riallm.models.rxt import RxT
from riallm.recipes.tell_ask import model
from riallm.train.rollout import answered_by, live, others

TASK = TellAskConfig(num_turns=5, min_turns=3, num_keys=8, num_values=8, num_fillers=4, max_live=4)


@pytest.fixture(scope="module")
def rxt() -> RxT:
    made = RxT(model(hidden=32, layers=2, slots=4, vocab=TASK.vocab_size))
    made.initialise(0)
    with torch.no_grad():  # odds that are neither even nor sure
        made.lm_head.weight.normal_(generator=torch.Generator().manual_seed(1)).mul_(0.2)
        made.lm_head.bias[END] = 2.0
    return made.eval()


def quizzed() -> tuple[Episodes, torch.Tensor]:
    turns, data = batch(TASK, 0, 6)
    asked = torch.zeros(data.tokens.shape[:2], dtype=torch.bool)
    for row, each in enumerate(turns):
        for at, turn in enumerate(each):
            asked[row, at] = turn.kind in ("ask", "untold")
    return data, asked


@pytest.mark.parametrize("trained_start", [True, False])
def test_what_was_said_is_what_is_remembered(rxt: RxT, trained_start: bool) -> None:
    if not trained_start:
        drawn = RxT(replace(rxt.config, trained_start=False))
        drawn.load_state_dict(rxt.state_dict(), strict=False)
        rxt = drawn
    given, asked = quizzed()
    lived = live(rxt, given, asked, samples=3, end=END, seed=5)
    rows = torch.arange(len(given.tokens)).repeat_interleave(3)
    places = asked[rows]
    assert torch.equal(lived.episodes.tokens[~places], given.tokens[rows][~places])
    assert not torch.equal(lived.episodes.tokens[places], given.tokens[rows][places])
    prompts = given.mask[rows] & (given.answers[rows].int().cumsum(dim=-1) == 0)
    assert torch.equal(lived.episodes.tokens[prompts], given.tokens[rows][prompts])
    wanted = written(rxt, lived.episodes.tokens, lived.episodes.mask, seed=5)
    assert len(lived.memories) == given.tokens.shape[1]
    for ours, theirs in zip(lived.memories, wanted[:-1], strict=True):
        assert torch.allclose(ours.slots, theirs.slots, atol=1e-5)


def test_samples_differ_and_seeds_repeat(rxt: RxT) -> None:
    given, asked = quizzed()
    one, again, other = (live(rxt, given, asked, samples=4, end=END, seed=seed).episodes for seed in (1, 1, 2))
    assert torch.equal(one.tokens, again.tokens) and torch.equal(one.mask, again.mask)
    assert not torch.equal(one.tokens, other.tokens)
    samples = one.tokens[0::4], one.tokens[1::4]
    assert not torch.equal(*samples)


def test_answers_come_as_often_as_the_model_thinks(rxt: RxT) -> None:
    num = 2000
    asks = episodes([[Interaction([BEGIN, QUERY, 12, ANSWER, 20, END], 4)]] * num, num_tokens=6)
    memory = rxt.start(1).rows([0] * num)
    said = answered_by(rxt, memory, asks, end=END, seed=3)
    hidden, _ = decoded(rxt, asks.tokens[:1], asks.mask[:1], [rxt.start(1)])
    odds = rxt.logits(hidden[0, 0, 3]).softmax(dim=-1).detach()
    found = said.tokens[:, 0, 4].bincount(minlength=len(odds)) / num
    assert float((found - odds).abs().max()) < 4 * 0.5 / num**0.5
    assert float(odds.max()) < 0.9


def test_an_answer_goes_to_its_end_or_to_that_of_its_row(rxt: RxT) -> None:
    given, asked = quizzed()
    said = live(rxt, given, asked, samples=8, end=END, seed=5).episodes
    places = asked.repeat_interleave(8, dim=0)
    for tokens, mask, answers in zip(said.tokens[places], said.mask[places], said.answers[places], strict=True):
        ids = tokens[answers].tolist()
        assert END not in ids[:-1]
        assert ids[-1] == END or int(mask.sum()) == given.context
        assert bool(answers[: int(mask.sum())][-len(ids) :].all())
    lengths = said.mask[places].sum(dim=-1)
    assert len(lengths.unique()) > 2


def test_the_others_memory_is_of_the_conversation_before_sample_by_sample(rxt: RxT) -> None:
    memory = replace(rxt.start(6), slots=torch.arange(6.0).view(1, 6, 1, 1))
    (swapped,) = others([memory], 2)
    assert swapped.slots.flatten().tolist() == [4.0, 5.0, 0.0, 1.0, 2.0, 3.0]

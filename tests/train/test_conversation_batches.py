"""English conversations as batches: their tokens are their text, and a run that goes on sees the same ones."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from riallm.core.errors import UsageError
from riallm.data.conversations.conversation import ConversationConfig, conversation
from riallm.data.conversations.tokens import make_tokenizer
from riallm.eval.probes.counted import table
from riallm.eval.probes.rxt_talker import RxTTalker
from riallm.eval.probes.talk import ask
from riallm.models.rxt import RxT
from riallm.testing.tiny_rxt import tiny_rxt
from riallm.tokenizer.hybrid import HybridTokenizer
from riallm.tokenizer.interaction import markers
from riallm.train.conversations import MAX_TOKENS, ConversationFeed, Conversations, Phase, batch
from riallm.train.episodes import MemoryAware, Overheard
from riallm.train.loop import Following, Run, Step, TrainConfig
from riallm.train.optim import OptimiserConfig

CONFIG = ConversationConfig(num_turns=8, min_turns=3, max_live=4, retell=0.2)


@pytest.fixture(scope="module")
def tokenizer() -> HybridTokenizer:
    return make_tokenizer()


def test_tokens_are_the_text_and_the_places_of_answer_and_value(tokenizer: HybridTokenizer) -> None:
    turns, data, values = batch(CONFIG, tokenizer, first=20, rows=12)
    own = markers(tokenizer)
    assert turns == [conversation(CONFIG, number) for number in range(20, 32)]
    assert data.tokens.shape == data.mask.shape == values.shape
    assert data.tokens.shape == (12, max(map(len, turns)), data.mask.sum(dim=2).max())
    asked = 0
    for row, each in enumerate(turns):
        assert not data.mask[row, len(each) :].any()
        for at, turn in enumerate(each):
            ids, answer, value = data.tokens[row, at], data.answers[row, at], values[row, at]
            real = ids[data.mask[row, at]].tolist()
            split = real.index(own.answer)
            assert real[:2] == [own.begin, own.query]
            assert tokenizer.decode(real[2:split]) == turn.query
            assert ids[answer].tolist() == real[split + 1 :]
            assert tokenizer.decode(real[split + 1 : -1]) == turn.answer
            assert real[-1] == own.end
            said = tokenizer.decode(ids[value].tolist())
            assert said == (f" {turn.value}" if turn.kind == "ask" else "")
            asked += turn.kind == "ask"
    assert asked > 10
    assert data.num_bytes == sum(len(turn.answer) for each in turns for turn in each)


def test_phases_follow_one_another(tokenizer: HybridTokenizer) -> None:
    first = replace(CONFIG, min_turns=None)
    longer = replace(first, num_turns=CONFIG.num_turns + 2)
    phases = (Phase(config=first), Phase(begin=0.5, config=longer))
    source = Conversations(phases=phases, num=4, tokenizer=tokenizer, rows=2)
    assert [source(number).tokens.shape[1] for number in (1, 2)] == [CONFIG.num_turns, longer.num_turns]
    assert [source(1, elapsed).tokens.shape[1] for elapsed in (0.49, 0.5)] == [CONFIG.num_turns, longer.num_turns]
    for wrong in (phases[1:], (phases[0], phases[0])):
        with pytest.raises(UsageError, match="expected 0 first"):
            Conversations(phases=wrong, num=4, tokenizer=tokenizer, rows=2)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_batches_made_ahead_are_of_the_phase_that_the_run_is_in(tokenizer: HybridTokenizer) -> None:
    longer = replace(CONFIG, num_turns=CONFIG.num_turns + 2)
    phases = (Phase(config=CONFIG), Phase(begin=0.5, config=longer))
    source = Conversations(phases=phases, num=100, tokenizer=tokenizer, rows=2)
    with ConversationFeed(source, device="cpu", makers=1) as feed:
        for number, elapsed in enumerate((0.0, 0.1, 0.2, 0.6, 0.7)):
            found, wanted = feed(number, elapsed), source.of_phase(int(elapsed > 0.5), number)
            assert torch.equal(found.tokens, wanted.tokens) and torch.equal(found.answers, wanted.answers)
            assert found.num_bytes == wanted.num_bytes
    assert not multiprocessing.active_children()


def test_batches_of_other_numbers_are_other_conversations(tokenizer: HybridTokenizer) -> None:
    source = Conversations(phases=(Phase(config=CONFIG),), num=100, tokenizer=tokenizer, rows=4)
    first, second = source(0), source(1)
    whole = batch(CONFIG, tokenizer, first=0, rows=8).episodes
    assert torch.equal(source(1).tokens, second.tokens)
    for half, rows in ((first, slice(0, 4)), (second, slice(4, 8))):
        num_turns, longest = half.tokens.shape[1:]
        assert torch.equal(whole.tokens[rows, :num_turns, :longest], half.tokens)
        assert longest == half.mask.sum(dim=2).max()
    with pytest.raises(UsageError, match="rows have 12"):
        Conversations(phases=(Phase(config=CONFIG),), num=100, tokenizer=tokenizer, rows=4, num_tokens=12)(0)


@pytest.mark.parametrize("objective", [MemoryAware(), Overheard()])
def test_a_run_that_goes_on_is_the_run_that_never_stopped(
    tokenizer: HybridTokenizer, tmp_path: Path, objective: MemoryAware | Overheard
) -> None:
    phases = (Phase(config=CONFIG), Phase(begin=0.5, config=replace(CONFIG, num_turns=4)))
    source = Following(Conversations(phases=phases, num=3, tokenizer=tokenizer, rows=2))

    def trained(folder: Path, *, stop: int | None = None) -> dict[str, torch.Tensor]:
        model = RxT(tiny_rxt(vocab_size=tokenizer.vocab_size, max_interaction=MAX_TOKENS))
        model.initialise(0)

        def hear(step: Step) -> None:
            assert step.bits_per_byte
            if step.step == stop:
                raise KeyboardInterrupt

        config = TrainConfig(max_steps=3, ema=0.0, optimiser=OptimiserConfig(kind="adamw", lr=0.001))
        Run(model, source, objective, config, folder, on_step=hear).train()
        return {name: weight.detach() for name, weight in model.named_parameters()}

    whole = trained(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "stopped", stop=2)
    again = trained(tmp_path / "stopped")
    assert all(torch.equal(again[name], whole[name]) for name in whole)
    untrained = RxT(tiny_rxt(vocab_size=tokenizer.vocab_size, max_interaction=MAX_TOKENS))
    untrained.initialise(0)
    assert not torch.equal(whole["lm_head.weight"], untrained.lm_head.weight)


def test_a_model_that_learned_conversations_by_heart_answers_them_when_it_is_asked(
    tokenizer: HybridTokenizer, tmp_path: Path
) -> None:
    """Training and evaluation write an interaction alike: the same tokens, memory and answer."""
    config = ConversationConfig(num_turns=3, num_relations=6, max_live=2, untold=0.0, chat=0.0, seed=2)
    source = Conversations(phases=(Phase(config=config),), num=100, tokenizer=tokenizer, rows=4)
    model = RxT(tiny_rxt(vocab_size=tokenizer.vocab_size, max_interaction=MAX_TOKENS))
    model.initialise(0)
    optimiser = OptimiserConfig(kind="adamw", lr=0.01, weight_decay=0.0)
    train = TrainConfig(max_steps=60, ema=0.0, clip=1.0, optimiser=optimiser)
    Run(model, lambda number: source(0), MemoryAware(), train, tmp_path).train()
    found = table(ask(RxTTalker(model.eval(), tokenizer), config, num=1, rows=4))
    assert found["questions"] >= 3
    assert found["memory"]["exact"]["value"] == 1.0
    assert found["memory"]["nats"]["value"] < 0.5

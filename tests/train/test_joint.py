"""Joint training: what the encoder sees, what the decoder sees, and what that gives away."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from riallm.core.errors import UsageError
from riallm.models.episodes import Episodes, Interaction, episodes
from riallm.models.rxt import RxT
from riallm.nn.memory_state import MemoryState, Reading
from riallm.recipes.tell_ask import model
from riallm.train.joint import Joint, JointRxT
from riallm.train.objective import Loss
from riallm.train.optim import OptimiserConfig, optimisers

VOCAB, MASK = 24, 1


def rxt(layers: int = 2) -> JointRxT:
    made = JointRxT(model(hidden=32, layers=layers, slots=4, vocab=VOCAB), mask_token=MASK)
    made.initialise(0)
    return made


def drawn(number: int, *, rows: int = 32, length: int = 10) -> Episodes:
    """Tokens that are drawn evenly, so that none tells anything about another; every other row is two shorter."""
    draw = torch.Generator().manual_seed(number)
    texts = torch.randint(2, VOCAB, (rows, length), generator=draw).tolist()
    cut = [[Interaction(text[: length - 2 * (row % 2)], 1)] for row, text in enumerate(texts)]
    return replace(episodes(cut, num_tokens=length), seed=number)


class Watched(JointRxT):
    """Remembers what was encoded and what was read."""

    def encode(self, tokens: Tensor, mask: Tensor) -> Tensor:
        self.given, self.encoded = tokens, super().encode(tokens, mask)
        return self.encoded

    def reading(self, memory: MemoryState) -> Reading:
        self.read = memory.slots
        return super().reading(memory)


def watched(objective: Joint, data: Episodes) -> Watched:
    made = Watched(model(hidden=32, layers=2, slots=4, vocab=VOCAB), mask_token=MASK)
    made.initialise(0)
    objective(made, data)
    return made


def test_the_encoder_sees_a_copy_with_a_share_hidden_and_the_decoder_reads_its_output() -> None:
    data = drawn(3, rows=400)
    made = watched(Joint(), data)
    tokens, mask = data.tokens[:, 0], data.mask[:, 0]
    changed = made.given != tokens
    assert (made.given[changed] == MASK).all() and not changed[~mask].any()
    assert float(changed.sum() / mask.sum()) == pytest.approx(0.15, abs=0.02)
    assert torch.equal(made.read, made.encoded) and not made.read.requires_grad


def test_places_are_emptied_and_noise_is_added_in_the_memory_s_stead_alone() -> None:
    data = drawn(3, rows=600)
    made = watched(Joint(zeroed=0.3, noise=0.5), data)
    mask = data.mask[:, 0]
    empty = (made.read == 0).all(dim=-1).all(dim=0)
    assert float(empty[mask].float().mean()) == pytest.approx(0.3, abs=0.02) and not empty[~mask].any()
    apart = (made.read - made.encoded)[:, mask & ~empty]
    assert float(apart.std().detach()) == pytest.approx(0.5, abs=0.02)


def test_the_decoder_s_loss_does_not_reach_the_encoder_nor_the_head_s_the_decoder() -> None:
    def reached(term: str) -> set[str]:
        made = rxt()
        Joint()(made, drawn(0)).terms[term].backward()  # type: ignore[no-untyped-call]
        return {name.split(".")[0] for name, p in made.named_parameters() if p.grad is not None}

    assert reached("nats") == {"embed_tokens", "layers", "norm", "lm_head"}
    assert reached("masked") == {"embed_tokens", "encoder", "masked_head"}


def test_terms_are_of_what_they_say() -> None:
    data = drawn(5)
    loss = Joint(masked=2.0)(rxt(), data)
    num = data.num_units
    assert num == float(data.mask.sum()) - len(data.tokens)  # all but the first of a text
    assert float(loss.terms["masked"].detach()) == pytest.approx(2.0 * num * loss.metrics["masked_nats"], rel=1e-5)
    nats = float(loss.terms["nats"].detach()) / num
    low, high = sorted((loss.metrics["seen_nats"], loss.metrics["hidden_nats"]))
    assert low < nats < high and low > 2.0


def test_answers_alone_count_where_there_are_questions() -> None:
    """The sum over the whole is that over the beginning and that over the end."""
    whole, made = drawn(5), rxt()
    late = torch.arange(10) >= 6
    first, last = (replace(whole, answers=whole.answers & which) for which in (~late, late))
    nats = [Joint()(made, data).terms["nats"] for data in (whole, first, last)]
    assert first.num_units + last.num_units == whole.num_units and min(first.num_units, last.num_units) > 0
    assert torch.allclose(nats[0], nats[1] + nats[2], rtol=1e-5)


def test_what_the_document_s_setting_gives_away() -> None:
    """Tokens drawn evenly cannot be foretold, so whatever is below ln V was looked up; of hidden ones nothing is."""
    made, objective = rxt(layers=1), Joint()
    made_of = optimisers(made, OptimiserConfig(kind="adamw", lr=0.004, weight_decay=0.0))
    told: list[Loss] = []
    for number in range(160):
        data = drawn(number, length=6)
        loss = objective(made, data)
        (torch.stack(tuple(loss.terms.values())).sum() / data.num_units).backward()  # type: ignore[no-untyped-call]
        for optimiser in made_of:
            optimiser.step()
            optimiser.zero_grad()
        told.append(loss)
    chance = math.log(VOCAB - 2)
    seen, hidden = (sum(loss.metrics[name] for loss in told[-20:]) / 20 for name in ("seen_nats", "hidden_nats"))
    assert seen < 0.7 * chance < chance < hidden, (seen, hidden, chance)


def test_the_head_does_not_ship() -> None:
    made = rxt()
    shipped = made.shipped()
    assert type(shipped) is RxT and shipped.config == made.config
    own, found = made.state_dict(), shipped.state_dict()
    assert set(own) - set(found) == {f"masked_head.{name}" for name in made.masked_head.state_dict()}
    assert found.keys() == RxT(made.config).state_dict().keys()
    assert all(torch.equal(own[name], found[name]) for name in found)
    made.lm_head.weight.data.zero_()
    assert shipped.lm_head.weight.abs().sum() > 0  # a copy


@pytest.mark.parametrize("wrong", [{"hidden": 0.0}, {"hidden": 1.0}, {"zeroed": 1.0}, {"noise": -0.1}])
def test_shares_that_are_none_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="shares below 1"):
        Joint(**wrong)  # type: ignore[arg-type]

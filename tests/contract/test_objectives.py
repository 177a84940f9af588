"""What every objective over conversations keeps to: the same batch gives the same loss, padding changes nothing,
weights get gradients and no module keeps anything."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from riallm.data.tell_ask import TellAskConfig
from riallm.eval.probes.recall import batch
from riallm.models.episodes import Episodes
from riallm.recipes.tell_ask import model
from riallm.train.episodes import FullHistory, MemoryAware, Overheard
from riallm.train.joint import Joint, JointRxT
from riallm.train.objective import Objective
from riallm.train.writing import Blended, Reconstructed

TASK = TellAskConfig(num_turns=4, min_turns=2, num_keys=8, num_values=8, num_fillers=4, max_live=4)
MASK = 0  # of a padding's id, which stands in no conversation

OBJECTIVES: dict[str, Objective[Episodes]] = {
    "memory": MemoryAware(),
    "memory, window 1": MemoryAware(window=1),
    "overheard": Overheard(),
    "history": FullHistory(),
    "joint": Joint(),
    "joint, worn": Joint(zeroed=0.2, noise=0.1),
    "blended": Blended(),
    "reconstructed": Reconstructed(),
    "reconstructed later": Reconstructed(delay=1),
}
MEANS = {"balance", "z", "masked", "distance", "again"}
"""Terms that are means over a batch times its units."""


def conversations(rows: int = 4, first: int = 0) -> Episodes:
    return batch(TASK, first, rows)[1]


def rxt(dtype: torch.dtype = torch.float32) -> JointRxT:
    config = model(hidden=32, layers=2, slots=TASK.max_tokens, vocab=TASK.vocab_size)
    made = JointRxT(config, mask_token=MASK, dtype=dtype)
    made.initialise(0)
    return made


@pytest.fixture(params=OBJECTIVES)
def objective(request: pytest.FixtureRequest) -> Objective[Episodes]:
    return OBJECTIVES[request.param]


def test_the_same_batch_gives_the_same_loss_and_nothing_is_kept(objective: Objective[Episodes]) -> None:
    made, data = rxt(), conversations()
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    one, other = objective(made, data), objective(made, data)
    assert one.terms.keys() == other.terms.keys()
    assert all(torch.equal(one.terms[name], other.terms[name]) for name in one.terms)
    assert one.metrics == other.metrics and all(math.isfinite(value) for value in one.metrics.values())
    after = made.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert list(made.buffers()) == []


def test_padding_changes_nothing(objective: Objective[Episodes]) -> None:
    """Neither ids that fill a row, nor longer rows, nor interactions that nobody has."""
    made, data = rxt(), conversations()
    wanted = objective(made, data)
    more = (0, 0) if isinstance(objective, Blended) else (0, 3)  # that one has a slot for every token

    def padded(tensor: torch.Tensor, value: int) -> torch.Tensor:
        return F.pad(tensor, (*more, 0, 1), value=value)

    tokens = torch.where(data.mask, data.tokens, 7)
    filled = Episodes(
        tokens=padded(tokens, 5), mask=padded(data.mask, 0), answers=padded(data.answers, 0), seed=data.seed
    )
    found = objective(made, filled)
    assert filled.num_units == data.num_units
    for name, term in wanted.terms.items():
        assert torch.allclose(found.terms[name], term, rtol=1e-4, atol=1e-5), name


def test_weights_get_gradients_that_are_numbers(objective: Objective[Episodes]) -> None:
    made = rxt()
    torch.stack(tuple(objective(made, conversations()).terms.values())).sum().backward()  # type: ignore[no-untyped-call]
    grads = {name: p.grad for name, p in made.named_parameters() if p.grad is not None}
    assert all(bool(torch.isfinite(grad).all()) for grad in grads.values())
    assert sum(float(grad.abs().sum()) > 0 for grad in grads.values()) > 20


def test_bfloat16_computes_about_the_same(objective: Objective[Episodes]) -> None:
    data = conversations()
    exact, rough = objective(rxt(), data).told, objective(rxt(torch.bfloat16), data).told
    assert rough.dtype == torch.float32
    assert float(rough.detach()) == pytest.approx(float(exact.detach()), rel=0.05)


def test_other_seeds_draw_other_things() -> None:
    made, data = rxt(), conversations()
    for name in ("joint", "joint, worn", "blended"):
        told = [OBJECTIVES[name](made, replace(data, seed=seed)).told for seed in (0, 1)]
        assert not torch.equal(*told), name


def test_an_interaction_is_worth_its_tokens_in_any_company() -> None:
    """What is a sum over units is the sum of its halves; what is a mean comes times the units of its batch."""
    made, whole = rxt(), conversations(4)
    for name in ("memory", "overheard", "history"):
        terms = OBJECTIVES[name](made, whole).terms
        parts = [OBJECTIVES[name](made, conversations(2, first)).terms for first in (0, 2)]
        assert torch.allclose(terms["nats"], parts[0]["nats"] + parts[1]["nats"], rtol=1e-5), name
        assert set(terms) - {"nats"} <= MEANS

"""The reward model: RxT's weights, a head of its own, and every tensor in some unit."""

from __future__ import annotations

import torch

from riallm.models.reward import RewardModel
from riallm.models.rxt import RxT
from riallm.testing.tiny_rxt import tiny_rxt

CONFIG = tiny_rxt(vocab_size=40, max_interaction=12)


def test_it_begins_with_the_model_s_weights_and_no_opinion() -> None:
    rxt = RxT(CONFIG)
    rxt.initialise(2)
    made = RewardModel.of(rxt)
    own = dict(made.named_parameters())
    assert all(torch.equal(own[name], parameter) for name, parameter in rxt.named_parameters())
    assert own["lm_head.weight"] is not rxt.lm_head.weight
    hidden = torch.randn(3, 2, CONFIG.hidden_size, generator=torch.Generator().manual_seed(0))
    assert torch.equal(made.rewards(hidden), torch.zeros(3, 2))
    with torch.no_grad():
        made.reward_head.weight.fill_(1.0)
    assert torch.allclose(made.rewards(hidden), hidden.sum(dim=-1), atol=1e-5)


def test_the_units_have_the_head() -> None:
    made = RewardModel(CONFIG)
    names = {name for unit in made.units() for name in unit.tensors()}
    assert {"reward_head.weight", "reward_head.bias"} <= names
    assert sum(p.numel() for p in made.parameters()) == made.costs().num_parameters

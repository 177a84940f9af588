"""Experts: grouped as one by one, and a balance that sees the load."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from riallm.core.errors import UsageError
from riallm.nn.moe import MixtureOfExperts


def made(num_experts: int = 6, each: int = 2) -> MixtureOfExperts:
    module = MixtureOfExperts(hidden_size=16, intermediate_size=24, num_experts=num_experts, experts_per_token=each)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(generator=draw).mul_(0.3)
    return module


def one_by_one(module: MixtureOfExperts, x: Tensor) -> Tensor:
    odds = module.router(x).softmax(dim=-1)
    rows = []
    for token, chances in zip(x, odds, strict=True):
        best = chances.argsort(descending=True)[: module.experts_per_token].tolist()
        total = chances[best].sum()
        rows.append(sum(chances[e] / total * module.experts.one(e, token[None])[0] for e in best))
    return torch.stack(rows)


def test_grouped_is_what_each_token_gets_alone_and_so_are_gradients() -> None:
    module = made()
    x = torch.randn((37, 16), generator=torch.Generator().manual_seed(1))
    got, _ = module(x)
    wanted = one_by_one(module, x)
    assert torch.allclose(got, wanted, atol=1e-5)
    sides = []
    for out in (got, wanted):
        module.zero_grad()
        out.square().sum().backward()
        sides.append(torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None]))
    assert (sides[0] - sides[1]).abs().max() < 1e-4


def test_balance_is_one_when_even_and_the_number_of_experts_when_all_go_to_one() -> None:
    module = made(num_experts=4, each=1)
    x = torch.eye(4).repeat(8, 4)
    with torch.no_grad():
        module.router.weight.copy_(torch.eye(4).repeat(1, 4) * 10)
    _, even = module(x)
    assert float(even.balance.detach()) == pytest.approx(1.0, abs=1e-3)
    assert even.load.tolist() == [0.25] * 4
    _, one = module(x[:1].repeat(32, 1))
    assert float(one.balance.detach()) == pytest.approx(4.0, abs=1e-3)
    assert one.load.tolist() == [1.0, 0.0, 0.0, 0.0]
    one.balance.backward()
    grad = module.router.weight.grad
    assert grad is not None
    assert float(grad.norm()) > 0


def test_padding_has_no_part_in_the_balance() -> None:
    module = made()
    x = torch.randn((8, 16), generator=torch.Generator().manual_seed(1))
    real = torch.arange(8) < 5
    _, masked = module(x, real)
    _, short = module(x[:5])
    assert torch.allclose(masked.load, short.load)
    assert torch.allclose(masked.balance, short.balance)
    assert torch.allclose(masked.z, short.z)


def test_more_experts_a_token_than_there_are_is_refused() -> None:
    with pytest.raises(UsageError, match="expected 1 to 4"):
        made(num_experts=4, each=5)

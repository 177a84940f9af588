"""Experts: grouped as one by one, a balance that sees the load, and a router in float32 whatever the rest is in."""

from __future__ import annotations

import math
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
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


def test_the_terms_of_the_router_are_as_computed_by_hand() -> None:
    module = made(num_experts=3, each=2)
    x = 2.0 * torch.randn((6, 16), generator=torch.Generator().manual_seed(1))
    real = torch.tensor([True, True, False, True, False, True])
    _, got = module(x, real)
    rows = (x.double() @ module.router.weight.detach().double().T)[real].tolist()
    z, load, mean = 0.0, [0.0] * 3, [0.0] * 3
    for logits in rows:
        total = sum(math.exp(each) for each in logits)
        z += math.log(total) ** 2 / len(rows)
        for expert in sorted(range(3), key=lambda each: -logits[each])[:2]:
            load[expert] += 1 / (2 * len(rows))
        mean = [old + math.exp(each) / total / len(rows) for old, each in zip(mean, logits, strict=True)]
    assert float(got.z.detach()) == pytest.approx(z, rel=1e-5)
    assert got.load.tolist() == pytest.approx(load)
    assert len(set(load)) > 1
    balance = 3 * sum(share * odds for share, odds in zip(load, mean, strict=True))
    assert float(got.balance.detach()) == pytest.approx(balance, rel=1e-5)


@pytest.mark.parametrize("how", ["weights", "autocast"])
def test_weights_of_16_bits_are_routed_as_in_float32(how: str) -> None:
    narrow = made().bfloat16()
    wide = deepcopy(narrow).float()
    x = torch.randn((64, 16), generator=torch.Generator().manual_seed(1)).bfloat16()
    real = torch.arange(64) < 50
    _, wanted = wide(x.float(), real)
    if how == "weights":
        _, got = narrow(x, real)
    else:
        with torch.autocast("cpu", torch.bfloat16):
            _, got = wide(x.float(), real)
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        told = got.load, got.z, got.balance
    for one, other in zip(told, (wanted.load, wanted.z, wanted.balance), strict=True):
        torch.testing.assert_close(one, other, atol=0.0, rtol=1e-6)


def test_an_answer_does_not_compute_what_training_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    class Asked(Exception):
        pass

    def asked(*_: object, **__: object) -> Tensor:
        raise Asked

    monkeypatch.setattr(Tensor, "logsumexp", asked)
    monkeypatch.setattr(F, "one_hot", asked)
    _, routing = made()(torch.ones((3, 16)), torch.tensor([True, True, False]))
    for term in ("balance", "z", "load"):
        with pytest.raises(Asked):
            getattr(routing, term)


def test_more_experts_a_token_than_there_are_is_refused() -> None:
    with pytest.raises(UsageError, match="expected 1 to 4"):
        made(num_experts=4, each=5)

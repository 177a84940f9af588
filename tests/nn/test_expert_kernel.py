"""The compiled experts: what the plain ones give, the same bits in any company, and only where they may be."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from riallm.nn import expert_kernel
from riallm.nn.moe import Experts
from riallm.quant.compiled import kernels

pytestmark = pytest.mark.skipif(kernels().path == "torch", reason=f"no compiled kernels here: {kernels().reason}")


def made(num: int, hidden: int, inner: int) -> Experts:
    experts = Experts(num_experts=num, hidden_size=hidden, intermediate_size=inner)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in experts.parameters():
            parameter.normal_(generator=draw).mul_(0.3)
    return experts


def routed(num: int, experts: int, each: int, hidden: int) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(num)
    odds = torch.rand((num, experts), generator=draw)
    top, chosen = odds.topk(each, dim=-1)
    return torch.randn((num, hidden), generator=draw), chosen, top


@pytest.mark.parametrize("num", [1, 2, 3, 4, 5, 37, 200])
@pytest.mark.parametrize(("experts", "each", "hidden", "inner"), [(6, 2, 16, 48), (5, 5, 48, 16), (42, 4, 64, 80)])
def test_they_are_the_plain_ones(num: int, experts: int, each: int, hidden: int, inner: int) -> None:
    module = made(experts, hidden, inner)
    given = routed(num, experts, each, hidden)
    plain = module(*given)  # gradients are on
    with torch.no_grad():
        assert expert_kernel.takes(given[0], list(module.parameters()))
        torch.testing.assert_close(module(*given), plain.detach(), atol=1e-4, rtol=1e-4)


def test_a_token_gets_the_same_bits_in_any_company_and_with_any_number_of_threads() -> None:
    module = made(6, 32, 48)
    x, chosen, shares = routed(41, 6, 3, 32)
    threads = torch.get_num_threads()
    with torch.inference_mode():
        together = module(x, chosen, shares)
        for at in range(len(x)):
            own = slice(at, at + 1)
            assert torch.equal(module(x[own], chosen[own], shares[own])[0], together[at])
        try:
            torch.set_num_threads(3)
            assert torch.equal(module(x, chosen, shares), together)
        finally:
            torch.set_num_threads(threads)


def test_what_is_large_is_no_overflow() -> None:
    module = made(4, 16, 16)
    x, chosen, shares = routed(9, 4, 2, 16)
    with torch.no_grad():
        module.gate_proj.mul_(1000)
        got = module(x, chosen, shares)
    torch.testing.assert_close(got, module(x, chosen, shares).detach(), rtol=1e-4, atol=1e-2)


def test_gradients_other_types_and_odd_sizes_are_for_the_plain_ones() -> None:
    module, x = made(4, 16, 16), torch.zeros(3, 16)
    weights = list(module.parameters())
    assert not expert_kernel.takes(x, weights)
    with torch.no_grad():
        assert expert_kernel.takes(x, weights)
        assert not expert_kernel.takes(x.bfloat16(), weights)
        assert not expert_kernel.takes(x, [each.bfloat16() for each in weights])
        assert not expert_kernel.takes(x.to("meta"), weights)
        assert not expert_kernel.takes(torch.zeros(3, 24), list(made(4, 24, 16).parameters()))
        assert not expert_kernel.takes(x, list(made(4, 16, 24).parameters()))

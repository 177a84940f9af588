"""Norm, rotary positions, feed-forward networks: each against what its definition says."""

from __future__ import annotations

import math

import pytest
import torch

from riallm.core.errors import UsageError
from riallm.nn.feedforward import DualPathFeedForward, FeedForward
from riallm.nn.linear import Linear
from riallm.nn.norm import RMSNorm
from riallm.nn.rope import RopeScaling, angles, frequencies, rotate


def test_rms_norm_in_bfloat16_is_computed_in_float32() -> None:
    x = torch.randn(4, 32, dtype=torch.bfloat16) * 100
    norm = RMSNorm(32, eps=1e-5)
    wanted = x.float() / (x.float().square().mean(-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(norm(x), wanted.bfloat16())
    assert RMSNorm(32, eps=1e-5, gain=False).weight is None


def test_linear_casts_its_weights_to_the_input() -> None:
    layer = Linear(8, 4)
    assert layer(torch.randn(2, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert layer.weight.dtype == torch.float32


def test_rotation_depends_on_the_distance_alone() -> None:
    inverse, scale = frequencies(16, 10_000.0)
    q, k = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)

    def score(first: int, second: int) -> float:
        turned = [rotate(each, *angles(torch.tensor([[at]]), inverse, scale)) for each, at in ((q, first), (k, second))]
        return float((turned[0] * turned[1]).sum())

    assert score(7, 3) == pytest.approx(score(104, 100), abs=1e-4)
    assert score(7, 3) != pytest.approx(score(7, 4), abs=1e-3)
    assert score(0, 0) == pytest.approx(float((q * k).sum()), abs=1e-5)


def test_scaling_slows_the_slow_pairs_and_spares_the_fast() -> None:
    plain, _ = frequencies(64, 10_000.0)
    yarn, temperature = frequencies(64, 10_000.0, RopeScaling(kind="yarn", factor=8.0, original_context=4096))
    ntk, _ = frequencies(64, 10_000.0, RopeScaling(kind="ntk", factor=8.0, original_context=4096))
    assert yarn[0] == plain[0] and ntk[0] == plain[0]
    assert float(plain[-1] / yarn[-1]) == pytest.approx(8.0)
    assert float(plain[-1] / ntk[-1]) == pytest.approx(8.0, rel=1e-4)
    assert temperature == pytest.approx(0.1 * math.log(8.0) + 1.0)
    with pytest.raises(UsageError, match="at least 1"):
        frequencies(64, 10_000.0, RopeScaling(kind="ntk", factor=0.5, original_context=4096))
    with pytest.raises(UsageError, match="even"):
        frequencies(63, 10_000.0)


def test_swiglu_and_squared_relu() -> None:
    x = torch.randn(3, 8)
    layer = FeedForward(hidden_size=8, intermediate_size=16)
    assert layer.gate_proj is not None
    wanted = (torch.nn.functional.silu(layer.gate_proj(x)) * layer.up_proj(x)) @ layer.down_proj.weight.T
    torch.testing.assert_close(layer(x), wanted)
    squared = FeedForward(hidden_size=8, intermediate_size=16, activation="relu2")
    assert squared.gate_proj is None
    torch.testing.assert_close(squared(x), (squared.up_proj(x).relu() ** 2) @ squared.down_proj.weight.T)


def test_the_dual_path_is_the_document_s_formula_and_the_gate_changes_the_output() -> None:
    torch.manual_seed(0)
    layer = DualPathFeedForward(hidden_size=16, intermediate_size=32, rank=4)
    x = torch.randn(5, 16)
    shared = layer.down_proj(layer.inner(x))
    planning = shared + layer.plan_out(layer.plan_in(x))
    execution = shared + layer.execute_out(layer.execute_in(x))
    gate = layer.gate(x)
    torch.testing.assert_close(layer(x), gate * planning + (1 - gate) * execution)
    before = layer(x)
    with torch.no_grad():
        layer.path_gate.bias.fill_(20.0)
    torch.testing.assert_close(layer(x), planning, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(before, layer(x), atol=1e-3)

"""A write against its formulas: every variant with every gate that a configuration takes."""

from __future__ import annotations

from itertools import product
from typing import get_args

import pytest
import torch
from torch import Tensor

from riallm.core.errors import UsageError
from riallm.nn.memory_attention import MemoryAttention, MemoryAttentionConfig, Variant
from riallm.nn.memory_gate import GateConfig, Kind, MemoryGate, Mixing, Status
from tests.nn.plain_rxt import EPS, drawn_weights, gated, written

HIDDEN, HEAD, SLOTS, TOKENS, THETA = 16, 4, 3, 4, 20.0
MASK = torch.tensor([[True, True, True, True], [False, True, True, False], [False, False, False, False]])


def gates() -> list[GateConfig]:
    """All that are accepted."""
    found = []
    for mixing, kind, status, bias, places in product(
        get_args(Mixing), get_args(Kind), get_args(Status), (None, -0.5), (1, 2)
    ):
        try:
            found.append(GateConfig(mixing=mixing, kind=kind, status=status, bias=bias, places=places))
        except UsageError:
            pass
    return found


def named(gate: GateConfig) -> str:
    return f"{gate.mixing}-{gate.kind}-{gate.status}-{gate.bias}-{gate.places}"


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def turn() -> tuple[Tensor, Tensor]:
    """Cosine and sine (1, 1, T, K/2) of the places of tokens."""
    angles = torch.tensor([[place * THETA ** (-2 * i / HEAD) for i in range(HEAD // 2)] for place in range(TOKENS)])
    return angles.cos()[None, None], angles.sin()[None, None]


def assert_written_alike(config: MemoryAttentionConfig, num_layers: int = 2) -> None:
    module = MemoryAttention(config, num_layers=num_layers, hidden_size=HIDDEN, head_dim=HEAD, num_slots=SLOTS, eps=EPS)
    weights = drawn_weights(module, seed=1)
    slots = drawn(num_layers, len(MASK), SLOTS, HIDDEN, seed=2) + 0.5 * drawn(num_layers, len(MASK), SLOTS, 1, seed=3)
    encoded = 2.0 * drawn(num_layers, len(MASK), TOKENS, HIDDEN, seed=4)
    with torch.no_grad():
        got = module(slots, encoded, mask=MASK, key_turn=turn())
    for row, real in enumerate(MASK.tolist()):
        wanted = written(
            weights, config, slots[:, row].double(), encoded[:, row].double(), real, head_dim=HEAD, theta=THETA
        )
        torch.testing.assert_close(got[:, row], wanted.float(), atol=2e-5, rtol=2e-5)


def test_the_gates_that_a_configuration_takes() -> None:
    """Two mixings, each static, or of two kinds with either status, or competing so for one place or two, all of them
    with a bias or without; and the two mixings that have no gate."""
    assert len(gates()) == 2 * (1 + 2 * 2 + 2 * 2) * 2 + 2


@pytest.mark.parametrize("gate", [gate for gate in gates() if gate.bias is None], ids=named)
@pytest.mark.parametrize("variant", get_args(Variant))
def test_a_write_is_what_its_formulas_say(variant: Variant, gate: GateConfig) -> None:
    assert_written_alike(MemoryAttentionConfig(variant=variant, num_heads=2, num_kv_heads=2, gate=gate))


@pytest.mark.parametrize("variant", get_args(Variant))
def test_names_of_slots_are_added_to_what_they_ask(variant: Variant) -> None:
    assert_written_alike(MemoryAttentionConfig(variant=variant, num_heads=4, num_kv_heads=2, slot_identity=True))


@pytest.mark.parametrize("variant", ["interlayer", "gated_self_interlayer"])
def test_a_mean_is_of_neighbouring_layers(variant: Variant) -> None:
    assert_written_alike(
        MemoryAttentionConfig(variant=variant, num_heads=2, num_kv_heads=2, layer_groups=2), num_layers=4
    )


@pytest.mark.parametrize("gate", gates(), ids=named)
def test_a_gate_is_what_its_formula_says(gate: GateConfig) -> None:
    module = MemoryGate(gate, hidden_size=HIDDEN, num_slots=SLOTS)
    weights = drawn_weights(module, seed=5)
    old, new = drawn(2, SLOTS, HIDDEN, seed=6) + 0.3, drawn(2, SLOTS, HIDDEN, seed=7) - 0.5
    with torch.no_grad():
        got = module(old, new)
    for row in range(2):
        wanted = gated(weights, gate, old[row].double(), new[row].double())
        torch.testing.assert_close(got[row], wanted.float(), atol=1e-5, rtol=1e-5)


def test_a_gate_begins_as_configured() -> None:
    plain = MemoryGate(GateConfig(weight=2.0, bias=-1.0), hidden_size=HIDDEN, num_slots=SLOTS)
    linear = MemoryGate(GateConfig(kind="linear", weight=2.0), hidden_size=HIDDEN, num_slots=SLOTS)
    for gate, weight, bias in ((plain, [2.0] * 3, [-1.0] * 3), (linear, [[2, 0, 0], [0, 2, 0], [0, 0, 2]], [0.0] * 3)):
        assert gate.weight is not None and gate.bias is not None
        assert gate.weight.tolist() == weight
        assert gate.bias.tolist() == bias

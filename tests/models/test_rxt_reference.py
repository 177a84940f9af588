"""RxT against its formulas: what the encoder gives layer by layer, what the decoder reads, and what a turn writes.

Letters: L layers, S slots, T tokens, D hidden; a row at a time has no letter.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from riallm.models.rxt import RxT, RxTConfig
from riallm.nn.memory_attention import MemoryAttentionConfig
from riallm.nn.memory_state import MemoryState
from riallm.nn.meta import TokenMeta
from tests.nn.plain_rxt import Weights, attention, below, drawn_weights, norm, written

TINY = RxTConfig(
    vocab_size=20,
    hidden_size=16,
    num_layers=2,
    num_heads=4,
    max_interaction=6,
    num_slots=3,
    decoder_heads=4,
    decoder_kv_heads=2,
    num_experts=3,
    experts_per_token=2,
    expert_size=8,
    encoder_heads=2,
    encoder_kv_heads=2,
    encoder_size=12,
    memory=MemoryAttentionConfig(num_heads=2, num_kv_heads=2),
    rope_theta=20.0,
)
MASK = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
CLOSE = 1e-4


def made(config: RxTConfig = TINY) -> tuple[RxT, Weights]:
    model = RxT(config).eval()
    return model, drawn_weights(model, seed=1)


def drawn_turn(config: RxTConfig = TINY) -> tuple[Tensor, MemoryState]:
    """Tokens (B, T) and a memory from before them."""
    draw = torch.Generator().manual_seed(2)
    num_layers, num_slots, hidden = config.memory_shape
    slots = torch.randn((num_layers, len(MASK), num_slots, hidden), generator=draw)
    return torch.randint(0, config.vocab_size, MASK.shape, generator=draw), MemoryState(slots=slots)


def swiglu(maps: list[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    """down(silu(gate(x)) * up(x)) of x (D,); maps: gate, up and down, each a weight and a bias."""
    gate, up, down = maps
    inner = gate[0] @ x + gate[1]
    return down[0] @ (inner / (1.0 + torch.exp(-inner)) * (up[0] @ x + up[1])) + down[1]


def encoded(weights: Weights, config: RxTConfig, tokens: list[int], real: list[bool]) -> Tensor:
    """What every encoder layer gives of one row, (L, T, D)."""
    x = weights["embed_tokens.weight"][tokens]
    sees = [[at for at, each in enumerate(real) if each]] * len(tokens)
    found = []
    for number in range(config.num_layers):
        own = below(weights, f"encoder.{number}")
        normed = norm(x, own["attn_norm.weight"])
        x = x + attention(
            below(own, "attn"),
            normed,
            normed,
            head_dim=config.head_dim,
            sees=sees,
            theta=config.rope_theta,
            turn_queries=True,
            turn_keys=True,
        )
        maps = [(own[f"mlp.{name}_proj.weight"], own[f"mlp.{name}_proj.bias"]) for name in ("gate", "up", "down")]
        x = x + torch.stack([swiglu(maps, each) for each in norm(x, own["mlp_norm.weight"])])
        found.append(x)
    return torch.stack(found)


def experts(weights: Weights, config: RxTConfig, x: Tensor) -> Tensor:
    """The likeliest experts of x (D,), weighed by their odds, which are made to add up to one."""
    scores = torch.exp(weights["router.weight"] @ x)
    odds = (scores / scores.sum()).tolist()
    best = sorted(range(config.num_experts), key=lambda each: -odds[each])[: config.experts_per_token]
    out = torch.zeros_like(x)
    for each in best:
        maps = [
            (weights[f"experts.{name}_proj"][each], weights[f"experts.{name}_bias"][each])
            for name in ("gate", "up", "down")
        ]
        out = out + odds[each] / sum(odds[at] for at in best) * swiglu(maps, x)
    return out


def decoded(weights: Weights, config: RxTConfig, tokens: list[int], slots: Tensor | None) -> Tensor:
    """Logits (T, V) of one row, slots (L, S, D); None: it looks at none."""
    num, head_dim, theta = len(tokens), config.head_dim, config.rope_theta
    x = weights["embed_tokens.weight"][tokens]
    for number in range(config.num_layers):
        own = below(weights, f"layers.{number}")
        normed = norm(x, own["self_norm.weight"])
        x = x + attention(
            below(own, "self_attn"),
            normed,
            normed,
            head_dim=head_dim,
            sees=[list(range(at + 1)) for at in range(num)],
            theta=theta,
            turn_queries=True,
            turn_keys=True,
        )
        if slots is not None:
            x = x + attention(
                below(own, "read_attn"),
                norm(x, own["read_norm.weight"]),
                norm(slots[number], own["slot_norm.weight"]),
                head_dim=head_dim,
                sees=[list(range(config.num_slots))] * num,
                theta=theta,
                turn_queries=True,
            )
        x = x + torch.stack([experts(below(own, "mlp"), config, each) for each in norm(x, own["mlp_norm.weight"])])
    if config.final_norm:
        x = norm(x, weights["norm.weight"])
    return x @ weights["lm_head.weight"].T + weights["lm_head.bias"]


@torch.no_grad()
def test_the_encoder_gives_what_each_of_its_layers_made() -> None:
    model, weights = made()
    tokens, _ = drawn_turn()
    got = model.encode(tokens, MASK)
    for row, real in enumerate(MASK):
        wanted = encoded(weights, TINY, tokens[row].tolist(), real.tolist())
        torch.testing.assert_close(got[:, row, real], wanted[:, real].float(), atol=CLOSE, rtol=CLOSE)


@pytest.mark.parametrize("final_norm", [False, True])
@torch.no_grad()
def test_the_decoder_reads_slots_with_turned_queries(final_norm: bool) -> None:
    config = replace(TINY, final_norm=final_norm)
    model, weights = made(config)
    tokens, memory = drawn_turn()
    state = model.turn(memory, keep=False)
    blind = replace(state, reading=replace(state.reading, layers=(None,) * TINY.num_layers))
    for begin, read in ((state, True), (blind, False)):
        got = model.logits(model(tokens, TokenMeta.padded(MASK), begin).hidden)
        for row, real in enumerate(MASK):
            slots = memory.slots[:, row].double() if read else None
            wanted = decoded(weights, config, tokens[row, real].tolist(), slots)
            torch.testing.assert_close(got[row, real], wanted.float(), atol=CLOSE, rtol=CLOSE)


@torch.no_grad()
def test_a_turn_writes_each_layer_from_that_layer_of_the_encoder() -> None:
    model, weights = made()
    tokens, memory = drawn_turn()
    got = model.end_turn(tokens, MASK, memory).slots
    for row, real in enumerate(MASK.tolist()):
        wanted = written(
            below(weights, "memory_attention"),
            TINY.memory,
            memory.slots[:, row].double(),
            encoded(weights, TINY, tokens[row].tolist(), real),
            real,
            head_dim=TINY.head_dim,
            theta=TINY.rope_theta,
        )
        torch.testing.assert_close(got[:, row], wanted.float(), atol=CLOSE, rtol=CLOSE)

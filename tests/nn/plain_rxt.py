"""What RxT's memory computes, written from its formulas in float64: one row, one slot, one query at a time, nothing
of the code under test but its weights, by name.

Letters: L layers, S slots, T tokens, D hidden, K head size, P places; a row at a time has no letter.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from riallm.nn.memory_attention import MemoryAttentionConfig
from riallm.nn.memory_gate import GateConfig

Weights = dict[str, Tensor]
EPS = 1e-6


@torch.no_grad()
def drawn_weights(module: nn.Module, seed: int) -> Weights:
    """Draw every parameter, so that none is zero, one, or the same as another; the same numbers in float64."""
    draw = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        parameter.normal_(generator=draw)
        if name.endswith("norm.weight"):
            parameter.mul_(0.3).add_(1.0)
        elif parameter.ndim > 1 and not name.endswith(("identity", "names", "start_slots", "embed_tokens.weight")):
            parameter.mul_(1.5 * parameter.shape[-1] ** -0.5)
    return {name: parameter.detach().double() for name, parameter in module.named_parameters()}


def below(weights: Weights, prefix: str) -> Weights:
    """The weights of one part."""
    return {name.removeprefix(f"{prefix}."): each for name, each in weights.items() if name.startswith(f"{prefix}.")}


def norm(x: Tensor, gain: Tensor | None = None, eps: float = EPS) -> Tensor:
    """x / sqrt(mean of squares) over the last axis, times a gain."""
    normed = x / torch.sqrt((x * x).mean(dim=-1, keepdim=True) + eps)
    return normed if gain is None else normed * gain


def turned(x: Tensor, place: int, theta: float) -> Tensor:
    """x (K,): number i and number i + K/2 turned together by place * theta^(-2i / K) radians."""
    half = len(x) // 2
    out = x.clone()
    for i in range(half):
        angle = place * theta ** (-2 * i / len(x))
        out[i] = x[i] * math.cos(angle) - x[i + half] * math.sin(angle)
        out[i + half] = x[i + half] * math.cos(angle) + x[i] * math.sin(angle)
    return out


def attention(
    weights: Weights,
    x: Tensor,
    source: Tensor,
    *,
    head_dim: int,
    sees: list[list[int]],
    theta: float = 1.0,
    turn_queries: bool = False,
    turn_keys: bool = False,
) -> Tensor:
    """x (T, D) into source (S, D) -> (T, D). sees: the numbers of the keys that each query sees. What is turned is
    turned by its number in the sequence."""
    q, k, v = (side @ weights[f"{name}_proj.weight"].T for name, side in (("q", x), ("k", source), ("v", source)))
    num_heads, num_shared = q.shape[1] // head_dim, k.shape[1] // head_dim
    seen = torch.zeros_like(q)
    for head in range(num_heads):
        here = slice(head * head_dim, (head + 1) * head_dim)
        shared = head // (num_heads // num_shared)
        there = slice(shared * head_dim, (shared + 1) * head_dim)
        keys = [turned(key, at, theta) if turn_keys else key for at, key in enumerate(k[:, there])]
        for number, allowed in enumerate(sees):
            query = turned(q[number, here], number, theta) if turn_queries else q[number, here]
            odds = torch.stack([torch.exp(query @ keys[at] / math.sqrt(head_dim)) for at in allowed])
            seen[number, here] = (odds / odds.sum()) @ v[allowed, there]
    return seen @ weights["o_proj.weight"].T + weights["o_proj.bias"]


def gated(weights: Weights, config: GateConfig, old: Tensor, new: Tensor) -> Tensor:
    """The residual gate: old and new (S, D) -> (S, D)."""
    if config.mixing == "add":
        return old + new
    if config.mixing == "replace":
        return new
    num_slots = len(old)
    status = [float((old[s] + new[s]).mean()) for s in range(num_slots)]
    if config.status == "learned":
        status = [float(weights["status.weight"][0] @ torch.cat((old[s], new[s]))) for s in range(num_slots)]
    taken = shares(below(weights, "match"), config, old, new) if config.kind == "competing" else [1.0] * num_slots
    out = []
    for s in range(num_slots):
        weight = weights["weight"][s]
        if config.kind == "static":
            inner = float(weight)
        elif config.kind == "linear":
            inner = sum(float(weight[other]) * status[other] for other in range(num_slots))
        else:
            assert config.kind in ("elementwise", "competing")
            inner = float(weight) * status[s]
        if config.kind == "linear" or config.bias is not None:
            inner += float(weights["bias"][s])
        if config.mixing == "sigmoid":
            g = taken[s] / (1.0 + math.exp(-inner))
            out.append(g * new[s] + (1.0 - g) * old[s])
        else:
            g = taken[s] * math.tanh(inner)
            out.append((1.0 + g) * new[s] + (1.0 - g) * old[s])
    return torch.stack(out)


def shares(weights: Weights, config: GateConfig, old: Tensor, new: Tensor) -> list[float]:
    """How much of a slot is taken by any place: 1 - product over places of (1 - softmax over slots of 4 match)."""
    num_slots, hidden = old.shape
    free = [1.0] * num_slots
    for place in range(config.places):
        rows = slice(place * hidden, (place + 1) * hidden)
        match = []
        for s in range(num_slots):
            held = weights["slot_proj.weight"][rows] @ norm(old[s], eps=0.0) + weights["names"][place * num_slots + s]
            found = weights["new_proj.weight"][rows] @ norm(new[s], eps=0.0)
            match.append(math.exp(4.0 * float(held @ found) / math.sqrt(hidden)))
        free = [free[s] * (1.0 - match[s] / sum(match)) for s in range(num_slots)]
    return [1.0 - each for each in free]


def written(
    weights: Weights,
    config: MemoryAttentionConfig,
    slots: Tensor,
    encoded: Tensor,
    real: list[bool],
    *,
    head_dim: int,
    theta: float,
) -> Tensor:
    """slots (L, S, D) and encoded (L, T, D) of one row -> slots (L, S, D). real: which tokens are no padding."""
    if not any(real):
        return slots
    num_layers, num_slots, _ = slots.shape
    tokens = [at for at, each in enumerate(real) if each]
    group = num_layers // config.layer_groups
    out = []
    for number in range(num_layers):
        own = below(weights, f"layers.{number}")
        name = own["identity"] if config.slot_identity else torch.zeros_like(slots[number])
        held = slots[number]
        if config.variant != "simple":
            content = norm(held, own["slot_norm.weight"])
            among = content
            if config.variant != "self":
                first = number // group * group
                mean = slots[first : first + group].sum(dim=0) / group
                among = norm(mean, weights["mean_norm.weight"])
                if config.variant == "gated_self_interlayer":
                    among = gated(below(own, "mean_gate"), config.gate, content, among)
            found = attention(
                below(own, "slot_attn"),
                content + name,
                among,
                head_dim=head_dim,
                sees=[list(range(num_slots))] * num_slots,
            )
            held = gated(below(own, "slot_gate"), config.gate, held, found)
        new = attention(
            below(own, "write_attn"),
            norm(held, own["write_norm.weight"]) + name,
            norm(encoded[number], own["source_norm.weight"]),
            head_dim=head_dim,
            sees=[tokens] * num_slots,
            theta=theta,
            turn_keys=True,
        )
        out.append(gated(below(own, "write_gate"), config.gate, held, new))
    return torch.stack(out)

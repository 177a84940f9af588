"""Attention from one sequence into another, without an order of time: an encoder's own tokens, memory slots, and tokens
that are written into them.

Sparse query attention (Filipek 2025) is this with fewer heads than D / K: scores cost as much as there are query heads.
Letters: B rows, T queries, S keys, D hidden, H heads, G key-value heads, K head size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from riallm.core.errors import UsageError
from riallm.nn.linear import Linear
from riallm.nn.rope import rotate

Turn = tuple[Tensor, Tensor]
"""`rope.angles` of positions."""


class KeysValues(NamedTuple):
    """keys and values (B, G, S, K)."""

    keys: Tensor
    values: Tensor


class CrossAttention(nn.Module):
    """Maps of queries, keys and values without biases, of the output with one."""

    def __init__(self, *, hidden_size: int, num_heads: int, num_kv_heads: int, head_dim: int) -> None:
        super().__init__()
        if num_heads % num_kv_heads:
            raise UsageError(f"{num_heads} query heads must be a multiple of {num_kv_heads} key-value heads")
        self.head_dim = head_dim
        self.q_proj = Linear(hidden_size, num_heads * head_dim, bias=False)
        self.k_proj = Linear(hidden_size, num_kv_heads * head_dim, bias=False)
        self.v_proj = Linear(hidden_size, num_kv_heads * head_dim, bias=False)
        self.o_proj = Linear(num_heads * head_dim, hidden_size)

    def queries(self, x: Tensor, turn: Turn | None = None) -> Tensor:
        """x (B, T, D) -> (B, H, T, K), turned where they have places."""
        return self._heads(self.q_proj(x), turn)

    def keys_values(self, source: Tensor, turn: Turn | None = None) -> KeysValues:
        """source (B, S, D); keys are turned where they have places."""
        return KeysValues(self._heads(self.k_proj(source), turn), self._heads(self.v_proj(source), None))

    def output(self, seen: Tensor) -> Tensor:
        """(B, H, T, K) -> (B, T, D)."""
        out: Tensor = self.o_proj(seen.transpose(1, 2).flatten(2))
        return out

    def forward(
        self,
        x: Tensor,
        source: Tensor,
        *,
        query_turn: Turn | None = None,
        key_turn: Turn | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """x (B, T, D), source (B, S, D) -> (B, T, D). mask (B, S): True for keys that count; of a row without any,
        the output's bias alone comes back."""
        q = self.queries(x, query_turn)
        return self.output(look(q, self.keys_values(source, key_turn), mask))

    def _heads(self, projected: Tensor, turn: Turn | None) -> Tensor:
        heads = projected.view(*projected.shape[:-1], -1, self.head_dim).transpose(1, 2)
        return heads if turn is None else rotate(heads, *turn)


def look(q: Tensor, at: KeysValues, mask: Tensor | None = None) -> Tensor:
    """(B, H, T, K) from q (B, H, T, K): every query sees every key that `mask` (B, S) leaves; none, zeros."""
    keys, values = at
    groups = q.shape[1] // keys.shape[1]
    if groups > 1:
        keys, values = keys.repeat_interleave(groups, dim=1), values.repeat_interleave(groups, dim=1)
    if mask is None:
        return F.scaled_dot_product_attention(q, keys, values)
    some = mask.any(dim=-1)[:, None, None, None]
    seen = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask[:, None, None, :] | ~some)
    return seen * some


@torch.no_grad()
def align(attention: CrossAttention, draw: torch.Generator) -> None:
    """Have an attention begin as a look-up: queries and values are drawn so that they keep lengths and angles, keys are
    mapped as the queries are, and the output as the values are, turned round. So what is alike finds each other, and
    what is found comes back as it was, as far as the heads carry it."""
    q, k, v = (each.weight for each in (attention.q_proj, attention.k_proj, attention.v_proj))
    for each in (q, v):
        nn.init.orthogonal_(each, generator=draw)
    shared = len(k) // attention.head_dim
    groups = len(q) // len(k)
    k.copy_(q.view(shared, groups, attention.head_dim, -1)[:, 0].flatten(0, 1))
    back = v.view(shared, 1, attention.head_dim, -1).expand(-1, groups, -1, -1) / groups
    attention.o_proj.weight.copy_(back.flatten(0, 2).T)

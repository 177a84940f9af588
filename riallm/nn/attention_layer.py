"""A layer of grouped-query attention, with a learned bias between files (RIA document, 2.3).

Letters: B rows, T tokens, D hidden, H heads, G key-value heads, K head size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from riallm.nn.adapter import AdapterPart, adapted
from riallm.nn.linear import Linear
from riallm.nn.meta import NUM_RELATIONS
from riallm.nn.norm import RMSNorm
from riallm.nn.rope import rotate
from riallm.nn.state import Pass


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionConfig:
    """bias: of the query, key and value maps; output_bias: of the output map. qk_norm_eps: queries and keys are normed
    head by head; qk_norm_gain: with a learned gain. file_bias: learned terms per head for relations between files."""

    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    bias: bool = False
    output_bias: bool = False
    qk_norm_eps: float | None = None
    qk_norm_gain: bool = False
    file_bias: bool = False


class Attention(nn.Module):
    """Queries, keys and values of the tokens at hand; what they see is the pass's business."""

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        inner, shared = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        self.q_proj = Linear(config.hidden_size, inner, bias=config.bias)
        self.k_proj = Linear(config.hidden_size, shared, bias=config.bias)
        self.v_proj = Linear(config.hidden_size, shared, bias=config.bias)
        self.o_proj = Linear(inner, config.hidden_size, bias=config.output_bias)
        eps = config.qk_norm_eps
        self.q_norm = None if eps is None else RMSNorm(config.head_dim, eps=eps, gain=config.qk_norm_gain)
        self.k_norm = None if eps is None else RMSNorm(config.head_dim, eps=eps, gain=config.qk_norm_gain)
        self.alpha = nn.Parameter(torch.zeros(config.num_heads, NUM_RELATIONS)) if config.file_bias else None

    def forward(
        self,
        x: Tensor,
        *,
        turn: tuple[Tensor, Tensor],
        within: Pass,
        layer: int,
        adapter: AdapterPart | None = None,
    ) -> Tensor:
        """x (B, T, D) -> (B, T, D). turn: `rope.angles` of the positions. layer: the number of this one in `within`.
        adapter: what one has for the four maps."""
        rows, tokens, _ = x.shape
        q = adapted(self.q_proj, x, adapter, "q_proj").view(rows, tokens, -1, self.head_dim).transpose(1, 2)
        k = adapted(self.k_proj, x, adapter, "k_proj").view(rows, tokens, -1, self.head_dim).transpose(1, 2)
        v = adapted(self.v_proj, x, adapter, "v_proj").view(rows, tokens, -1, self.head_dim).transpose(1, 2)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        seen = within.attend(layer, rotate(q, *turn), rotate(k, *turn), v, self.alpha)
        return adapted(self.o_proj, seen.transpose(1, 2).reshape(rows, tokens, -1), adapter, "o_proj")

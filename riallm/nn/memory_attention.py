"""How an interaction is written into memory: slots look at its tokens, perhaps at each other first (RxT document).

A layer of memory belongs to a layer of the decoder, and is written from that layer of the encoder. All layers are
written from what the memory was before, so none sees another's new content.

Letters: L layers, B rows, S slots, T tokens, D hidden.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from riallm.core.errors import UsageError
from riallm.nn.cross_attention import CrossAttention, Turn
from riallm.nn.memory_gate import GateConfig, MemoryGate
from riallm.nn.norm import RMSNorm

Variant = Literal["simple", "self", "interlayer", "gated_self_interlayer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryAttentionConfig:
    """variant: what a layer's slots look at before they are written: "simple", nothing; "self", each other;
    "interlayer", the mean over layers, slot by slot; "gated_self_interlayer", a gated mixture of both. layer_groups:
    parts of neighbouring layers that such a mean is taken over; 1: over all. slot_identity: slots are told apart by
    a learned vector each, else by their content alone."""

    variant: Variant = "gated_self_interlayer"
    layer_groups: int = 1
    num_heads: int = 8
    num_kv_heads: int = 8
    gate: GateConfig = field(default_factory=GateConfig)
    slot_identity: bool = False

    def __post_init__(self) -> None:
        if self.layer_groups < 1:
            raise UsageError(f"layer_groups is {self.layer_groups}; there is at least 1, of all layers")
        if self.layer_groups > 1 and not self.over_layers:
            raise UsageError(f"layer_groups is {self.layer_groups}, but variant '{self.variant}' has no mean of layers")

    @property
    def over_layers(self) -> bool:
        """Whether layers see a mean of the others."""
        return self.variant in ("interlayer", "gated_self_interlayer")


class MemoryAttentionLayer(nn.Module):
    """The write of one layer, as a new value of its slots."""

    def __init__(
        self, config: MemoryAttentionConfig, *, hidden_size: int, head_dim: int, num_slots: int, eps: float
    ) -> None:
        super().__init__()

        def attention() -> CrossAttention:
            return CrossAttention(
                hidden_size=hidden_size,
                num_heads=config.num_heads,
                num_kv_heads=config.num_kv_heads,
                head_dim=head_dim,
            )

        def gate() -> MemoryGate:
            return MemoryGate(config.gate, hidden_size=hidden_size, num_slots=num_slots)

        among = config.variant != "simple"
        self.write_norm, self.source_norm = RMSNorm(hidden_size, eps=eps), RMSNorm(hidden_size, eps=eps)
        self.write_attn, self.write_gate = attention(), gate()
        self.slot_norm = RMSNorm(hidden_size, eps=eps) if among else None
        self.slot_attn = attention() if among else None
        self.slot_gate = gate() if among else None
        self.mean_gate = gate() if config.variant == "gated_self_interlayer" else None
        self.identity = nn.Parameter(torch.zeros(num_slots, hidden_size)) if config.slot_identity else None

    def forward(self, slots: Tensor, mean: Tensor | None, source: Tensor, *, mask: Tensor, key_turn: Turn) -> Tensor:
        """slots (B, S, D), mean (B, S, D) of layers and normed, source (B, T, D): the encoder's; mask (B, T): tokens
        that are no padding -> (B, S, D)."""
        if self.slot_norm is not None and self.slot_attn is not None and self.slot_gate is not None:
            normed = self.slot_norm(slots)
            among = normed if mean is None else mean
            if mean is not None and self.mean_gate is not None:
                among = self.mean_gate(normed, mean)
            slots = self.slot_gate(slots, self.slot_attn(self._named(normed), among))
        query = self._named(self.write_norm(slots))
        new = self.write_attn(query, self.source_norm(source), key_turn=key_turn, mask=mask)
        out: Tensor = self.write_gate(slots, new)
        return out

    def _named(self, normed: Tensor) -> Tensor:
        return normed if self.identity is None else normed + self.identity.to(normed.dtype)


class MemoryAttention(nn.Module):
    """All layers."""

    def __init__(
        self,
        config: MemoryAttentionConfig,
        *,
        num_layers: int,
        hidden_size: int,
        head_dim: int,
        num_slots: int,
        eps: float,
    ) -> None:
        super().__init__()
        if num_layers % config.layer_groups:
            raise UsageError(f"{num_layers} layers cannot be divided into {config.layer_groups} groups")
        sizes = {"hidden_size": hidden_size, "head_dim": head_dim, "num_slots": num_slots}
        self.layers = nn.ModuleList(MemoryAttentionLayer(config, **sizes, eps=eps) for _ in range(num_layers))
        self.mean_norm = RMSNorm(hidden_size, eps=eps) if config.over_layers else None
        self.groups = config.layer_groups

    def forward(self, slots: Tensor, encoded: Tensor, *, mask: Tensor, key_turn: Turn) -> Tensor:
        """slots (L, B, S, D) and encoded (L, B, T, D) -> slots (L, B, S, D). mask (B, T): tokens that count; a row
        with none keeps its slots to the bit."""
        means: list[Tensor | None] = [None] * len(self.layers)
        if self.mean_norm is not None:
            parts = slots.view(self.groups, -1, *slots.shape[1:]).mean(dim=1)
            normed: Tensor = self.mean_norm(parts)
            means = [normed[layer * self.groups // len(self.layers)] for layer in range(len(self.layers))]
        written = torch.stack(
            [
                layer(slots[number], means[number], encoded[number], mask=mask, key_turn=key_turn)
                for number, layer in enumerate(self.layers)
            ]
        )
        return torch.where(mask.any(dim=-1)[None, :, None, None], written, slots)

"""The models by name: sizes as data. Building one on the device `meta` costs no memory and counts its parameters."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from riallm.core.errors import UsageError
from riallm.models.ria import RIA, RIAConfig, scaled_windows


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """written: parameters in billions as the document's tables have them, None for sizes of our own."""

    config: RIAConfig
    written: float | None
    source: str


def _tier(layers: int, hidden: int, inner: int, heads: int, kv_heads: int, context: int) -> RIAConfig:
    return RIAConfig(
        vocab_size=106_000,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=128,
        max_position_embeddings=context,
    )


def nano(*, hidden: int, layers: int, inner: int, vocab: int, context: int, head_dim: int = 128) -> RIAConfig:
    """A small model for one machine: heads of 128 as the tiers have them unless told, half as many key-value heads,
    ranges scaled with the context."""
    local, file = scaled_windows(context)
    return RIAConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=hidden // head_dim,
        num_key_value_heads=max(1, hidden // (2 * head_dim)),
        head_dim=head_dim,
        max_position_embeddings=context,
        local_window=local,
        file_window=file,
        dual_path_rank=4,
        qk_norm=True,
        softcap=15.0,
        skip_scalars=True,
        zero_output=True,
    )


ZOO: dict[str, Entry] = {
    "ria-1b": Entry(config=_tier(24, 2048, 5632, 16, 4, 32_768), written=1.0, source="RIA document, 4.2.1 and A.1"),
    "ria-8b": Entry(config=_tier(36, 4096, 14_336, 32, 8, 131_072), written=8.2, source="RIA document, 4.3.1 and A.2"),
    "ria-64b": Entry(config=_tier(64, 8192, 28_672, 64, 8, 262_144), written=64.5, source="RIA document, A.3"),
    "ria-128b": Entry(config=_tier(80, 12_288, 40_960, 96, 8, 524_288), written=128.3, source="RIA document, A.4"),
}


def entry(name: str) -> Entry:
    """The entry of a name; UsageError lists the known ones."""
    if name not in ZOO:
        raise UsageError(f"no model '{name}'; there are {', '.join(ZOO)}")
    return ZOO[name]


def build(name: str, *, device: str = "meta", dtype: torch.dtype = torch.bfloat16) -> RIA:
    """The model without weights: on `meta` it takes no memory. Parameters and activations are of `dtype`."""
    with torch.device(device):
        model = RIA(entry(name).config, dtype=dtype)
    return model.to(dtype)

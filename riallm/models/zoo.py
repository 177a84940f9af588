"""The models by name: sizes as data. Building one on the device `meta` costs no memory and counts its parameters."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from riallm.core.errors import UsageError
from riallm.models.base import Model
from riallm.models.decoder import Decoder
from riallm.models.llama import Llama, LlamaConfig
from riallm.models.ria import RIA, RIAConfig, scaled_windows
from riallm.models.rxt import RxT, RxTConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """written: parameters in billions as the source has them, None where it has none."""

    config: RIAConfig | LlamaConfig | RxTConfig
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


def _qwen(
    layers: int, hidden: int, inner: int, heads: int, kv_heads: int, *, head_dim: int = 128, biases: bool = True
) -> LlamaConfig:
    """The shape of Qwen2.5 below 7 billion parameters."""
    return LlamaConfig(
        vocab_size=151_936,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        max_position_embeddings=32_768,
        rms_norm_eps=1e-6,
        rope_theta=1e6,
        tie_word_embeddings=True,
        attention_bias=biases,
    )


RXT_BETA_MICRO = RxTConfig(
    vocab_size=32_000,
    hidden_size=256,
    num_layers=14,
    num_heads=16,
    max_interaction=1024,
    num_slots=1024,
    decoder_heads=8,
    decoder_kv_heads=4,
    num_experts=42,
    experts_per_token=4,
    expert_size=512,
    encoder_heads=8,
    encoder_kv_heads=8,
    encoder_size=768,
)
"""RxT-Beta-Micro as its document has it; what its four rounded sizes come to is in docs/models/rxt.md."""

ZOO: dict[str, Entry] = {
    "ria-1b": Entry(config=_tier(24, 2048, 5632, 16, 4, 32_768), written=1.0, source="RIA document, 4.2.1 and A.1"),
    "ria-8b": Entry(config=_tier(36, 4096, 14_336, 32, 8, 131_072), written=8.2, source="RIA document, 4.3.1 and A.2"),
    "ria-64b": Entry(config=_tier(64, 8192, 28_672, 64, 8, 262_144), written=64.5, source="RIA document, A.3"),
    "ria-128b": Entry(config=_tier(80, 12_288, 40_960, 96, 8, 524_288), written=128.3, source="RIA document, A.4"),
    "ruvltra-medium": Entry(
        config=_qwen(36, 2048, 11_008, 16, 2),
        written=3.0,
        source="RuvLTRA document, with Qwen2.5-3B's layers and biases",
    ),
    "ruvltra-medium-as-written": Entry(
        config=_qwen(32, 2048, 11_008, 16, 2, biases=False), written=3.0, source="RuvLTRA document, its table"
    ),
    "ruvltra-small": Entry(
        config=_qwen(24, 896, 4864, 14, 2, head_dim=64),
        written=0.5,
        source="RuvLTRA document; the shape of Qwen2.5-0.5B",
    ),
    "qwen2.5-1.5b": Entry(config=_qwen(28, 1536, 8960, 12, 2), written=1.54, source="Qwen2.5-1.5B's config.json"),
    "rxt-beta-micro": Entry(
        config=RXT_BETA_MICRO, written=0.27, source="RxT document, Beta-Micro: all parts, embeddings once"
    ),
}


def entry(name: str) -> Entry:
    """The entry of a name; UsageError lists the known ones."""
    if name not in ZOO:
        raise UsageError(f"no model '{name}'; there are {', '.join(ZOO)}")
    return ZOO[name]


def build(name: str, *, device: str = "meta", dtype: torch.dtype = torch.bfloat16) -> Model:
    """The model without weights: on `meta` it takes no memory. Parameters and activations are of `dtype`."""
    with torch.device(device):
        config = entry(name).config
        model = RxT(config, dtype=dtype) if isinstance(config, RxTConfig) else empty(config, dtype)
    return model.to(dtype)


def empty(config: RIAConfig | LlamaConfig, dtype: torch.dtype) -> Decoder:
    """A decoder of whichever family the configuration is of, its weights whatever the memory held."""
    return RIA(config, dtype=dtype) if isinstance(config, RIAConfig) else Llama(config, dtype=dtype)

"""Llama and its kin (Touvron et al. 2023): the shape of Llama, Qwen2, Qwen2.5, Qwen3 and RuvLTRA checkpoints.

What sets them apart is data: biases of queries, keys and values (Qwen2), of the output too (some Llamas), normed
queries and keys (Qwen3), tied embeddings, and how rotary positions are scaled.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from riallm.models.decoder import Block, Decoder, DecoderConfig
from riallm.nn.attention_layer import Attention
from riallm.nn.feedforward import FeedForward
from riallm.nn.norm import RMSNorm


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaConfig(DecoderConfig):
    """output_bias: of the attention's output map. qk_norm: queries and keys are normed, with a learned gain."""

    tie_word_embeddings: bool = False
    output_bias: bool = False
    qk_norm: bool = False


class Llama(Decoder):
    """A Llama-shaped language model."""

    def __init__(self, config: LlamaConfig, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(
            config,
            [_block(config) for _ in range(config.num_hidden_layers)],
            norm=RMSNorm(config.hidden_size, eps=config.rms_norm_eps),
            dtype=dtype,
        )
        self.config = config


def _block(config: LlamaConfig) -> Block:
    attention = replace(
        config.attention(),
        output_bias=config.output_bias,
        qk_norm_eps=config.rms_norm_eps if config.qk_norm else None,
        qk_norm_gain=True,
    )
    return Block(
        norms=(
            RMSNorm(config.hidden_size, eps=config.rms_norm_eps),
            RMSNorm(config.hidden_size, eps=config.rms_norm_eps),
        ),
        attention=Attention(attention),
        mlp=FeedForward(hidden_size=config.hidden_size, intermediate_size=config.intermediate_size),
    )

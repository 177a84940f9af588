"""Metadata of GGUF files and our configuration, both ways."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from riallm.checkpoint.gguf import GGUFModel
from riallm.core.errors import CheckpointError
from riallm.models.foreign_config import FAMILIES, family_for, made_of, theta_of
from riallm.models.llama import LlamaConfig
from riallm.nn.rope import RopeScaling

READ = {
    "vocab_size",
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "rope.scale_linear",
}
HARMLESS = {"rope.scaling.finetuned", "tensor_data_layout"}
ONLY: dict[str, tuple[Any, ...]] = {
    "expert_count": (0,),
    "expert_used_count": (0,),
    "use_parallel_residual": (False,),
    "attention.causal": (True,),
    "attention.sliding_window": (0,),
    "rope.scaling.attn_factor": (1.0,),
    "logit_scale": (1.0, 0.0),
}
"""Keys that change the computation, and the values with which they do not."""

LLAMA3 = [
    RopeScaling(kind="llama3", factor=factor, original_context=8192) for factor in (8.0, 32.0, 4.0, 16.0, 2.0, 64.0)
]
"""GGUF files have Llama 3's scaling as factors of the pairs; these are the ones that models were published with."""
FACTORS = "rope_freqs.weight"


def config_of(model: GGUFModel, *, where: str) -> LlamaConfig:
    """Raises CheckpointError for another architecture, or anything that this version would compute otherwise."""
    kind = model.architecture
    if kind not in FAMILIES:
        raise CheckpointError(
            f"{where} has the architecture {kind!r}; known are {', '.join(FAMILIES)}. Models of other kinds cannot be "
            "run here"
        )
    told = {key.removeprefix(f"{kind}."): value for key, value in model.metadata.items() if key.startswith(f"{kind}.")}
    window, context = told.get("attention.sliding_window"), told.get("context_length")
    if type(window) is int and type(context) is int and window >= context:
        del told["attention.sliding_window"]  # all of the context is within it
    for key, value in told.items():
        if key in ONLY and value not in ONLY[key]:
            raise CheckpointError(f"{where} has {key} {value!r}; this version computes with {ONLY[key][0]!r} only")
        if key not in READ and key not in ONLY and key not in HARMLESS:
            raise CheckpointError(
                f"{where} has {kind}.{key} {value!r}, which this version does not know and might have to compute with"
            )
    needed = ("embedding_length", "block_count", "feed_forward_length", "attention.head_count", "context_length")
    wrong = [key for key in needed if type(told.get(key)) is not int or told[key] < 1]
    if wrong or "token_embd.weight" not in model.tensors:
        raise CheckpointError(f"{where} has no {', '.join(wrong) or 'token_embd.weight'} that is one number from 1 on")
    heads, width = told["attention.head_count"], told["embedding_length"]
    head_dim = told.get("attention.key_length", width // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if told.get(key, head_dim) != head_dim:
            raise CheckpointError(f"{where} has {key} {told[key]}; expected {head_dim}, the size of a head")
    made = {
        "vocab_size": model.tensors.info("token_embd.weight").shape[0],
        "hidden_size": width,
        "intermediate_size": told["feed_forward_length"],
        "num_hidden_layers": told["block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": told.get("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": told["context_length"],
        "rms_norm_eps": shortest(told.get("attention.layer_norm_rms_epsilon", 1e-5)),
        "rope_theta": shortest(told.get("rope.freq_base", 10_000.0)),
        "rope_scaling": _scaling(model, told, head_dim, where),
        "tie_word_embeddings": "output.weight" not in model.tensors,
        "attention_bias": "blk.0.attn_q.bias" in model.tensors,
        "output_bias": "blk.0.attn_output.bias" in model.tensors,
        "qk_norm": FAMILIES[kind].qk_norm,
    }
    return made_of(made, where)


def shortest(value: Any) -> float:
    """The shortest decimal that is this float32: 1e-06 comes back as it was written, not as its neighbour."""
    if not isinstance(value, float) or not math.isfinite(value):
        raise CheckpointError(f"a GGUF file has {value!r} where it should have a number")
    single = torch.tensor(value, dtype=torch.float32)
    return next(
        found for digits in range(1, 18) if torch.tensor(found := float(f"{value:.{digits}g}")).float() == single
    )


def _scaling(model: GGUFModel, told: Mapping[str, Any], head_dim: int, where: str) -> RopeScaling | None:
    if FACTORS in model.tensors:
        factors = model.tensors[FACTORS]
        return _of_factors(factors, shortest(told.get("rope.freq_base", 10_000.0)), head_dim, where)
    kind = told.get("rope.scaling.type", "linear" if "rope.scale_linear" in told else "none")
    if kind == "none":
        return None
    if kind not in ("linear", "yarn"):
        raise CheckpointError(f"{where} scales rotary positions in the way {kind!r}; known are none, linear and yarn")
    factor = shortest(told.get("rope.scaling.factor", told.get("rope.scale_linear", 1.0)))
    original = told.get("rope.scaling.original_context_length", told["context_length"])
    if type(original) is not int or original < 1:
        raise CheckpointError(f"{where} has rope.scaling.original_context_length {original!r}; expected a number")
    if kind == "linear":
        return RopeScaling(kind="linear", factor=factor, original_context=original)
    return RopeScaling(
        kind="yarn",
        factor=factor,
        original_context=original,
        beta_fast=shortest(told.get("rope.scaling.yarn_beta_fast", 32.0)),
        beta_slow=shortest(told.get("rope.scaling.yarn_beta_slow", 1.0)),
    )


def factors_of(scaling: RopeScaling, theta: float, head_dim: int) -> Tensor:
    """(K/2,) float32: by how much each pair turns slower; what llama.cpp's converter writes for Llama 3."""
    pairs = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    turns = scaling.original_context * theta**-pairs / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    return (1.0 / (kept + (1.0 - kept) / scaling.factor)).float()


def _of_factors(found: Any, theta: float, head_dim: int, where: str) -> RopeScaling:
    for scaling in LLAMA3:
        wanted = factors_of(scaling, theta, head_dim)
        if found.shape == wanted.shape and torch.allclose(found.float(), wanted, rtol=1e-4):
            return scaling
    raise CheckpointError(
        f"{where} scales its rotary pairs by {FACTORS}, and not as a Llama 3 does; other factors are not known here"
    )


def metadata_of(config: LlamaConfig, *, name: str) -> dict[str, Any]:
    """All keys but the tokenizer's, as llama.cpp's converter writes them: whole numbers become uint32, others float32.
    Raises CheckpointError where no architecture fits."""
    family = family_for(config)
    if family.name == "qwen3" and config.attention_bias:
        raise CheckpointError("GGUF's qwen3 has no biases in its attention, and this model has; write another format")
    told: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.dimension_count": config.head_dim,
        "rope.freq_base": theta_of(config),
        **_scaling_keys(config.rope_scaling),
    }
    general = {"general.architecture": family.name, "general.type": "model", "general.name": name}
    return {**general, **{f"{family.name}.{key}": value for key, value in told.items()}}


def _scaling_keys(scaling: RopeScaling | None) -> dict[str, Any]:
    if scaling is None or scaling.kind not in ("linear", "yarn"):
        return {}
    told = {"rope.scaling.type": scaling.kind, "rope.scaling.factor": float(scaling.factor)}
    if scaling.kind == "linear":
        return told
    return {
        **told,
        "rope.scaling.original_context_length": scaling.original_context,
        "rope.scaling.yarn_beta_fast": float(scaling.beta_fast),
        "rope.scaling.yarn_beta_slow": float(scaling.beta_slow),
    }


def extra_tensors(config: LlamaConfig) -> dict[str, Tensor]:
    """Tensors that follow from the configuration, and that a file needs all the same."""
    scaling = config.rope_scaling
    if scaling is None or scaling.kind != "llama3":
        return {}
    if family_for(config).name != "llama":
        raise CheckpointError("GGUF has Llama 3's rotary scaling for the architecture llama alone")
    return {FACTORS: factors_of(scaling, config.rope_theta, config.head_dim)}

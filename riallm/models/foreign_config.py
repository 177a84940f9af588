"""Configurations of Llama-shaped models of other programs, one table a family, from and to Hugging Face's config.json.

What a configuration says is mapped, or known to change nothing, or refused: a model that computes something else than
it was trained for looks like a bad model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from riallm.core.config import from_json, to_json
from riallm.core.errors import CheckpointError, UsageError
from riallm.models.llama import LlamaConfig
from riallm.nn.rope import RopeScaling


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """name: Hugging Face's model_type and GGUF's architecture. causal: the class of its language model. defaults: what
    a configuration without the key means. biases: None where the configuration says it, else of (queries, keys and
    values; the output). permuted: GGUF files have the rows of queries and keys in another order."""

    name: str
    causal: str
    defaults: Mapping[str, Any]
    biases: tuple[bool, bool] | None
    qk_norm: bool
    permuted: bool


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            name="llama",
            causal="LlamaForCausalLM",
            defaults={"max_position_embeddings": 2048},
            biases=None,
            qk_norm=False,
            permuted=True,
        ),
        Family(
            name="qwen2",
            causal="Qwen2ForCausalLM",
            defaults={"max_position_embeddings": 32768, "num_key_value_heads": 32},
            biases=(True, False),
            qk_norm=False,
            permuted=False,
        ),
        Family(
            name="qwen3",
            causal="Qwen3ForCausalLM",
            defaults={"max_position_embeddings": 32768, "num_key_value_heads": 32, "head_dim": 128},
            biases=None,
            qk_norm=True,
            permuted=False,
        ),
    )
}

MOST_SIZE, MOST = 1 << 31, {"num_hidden_layers": 10_000}
"""No model has more; a damaged file may say so."""
SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
READ = {
    *SIZES,
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "tie_word_embeddings",
    "attention_bias",
    "model_type",
    "architectures",
}
ONLY: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "mlp_bias": (False, None),
    "partial_rotary_factor": (1.0, None),
    "is_decoder": (True, False, None),
    "add_cross_attention": (False, None),
    "is_encoder_decoder": (False, None),
    "quantization_config": (None,),
    "num_experts": (0, None),
    "num_local_experts": (0, None),
    "attention_multiplier": (1.0, None),
    "embedding_multiplier": (1.0, None),
    "residual_multiplier": (1.0, None),
    "logits_scaling": (1.0, None),
}
"""Keys that change the computation, and the values with which they do not."""
WINDOW = {"sliding_window", "use_sliding_window", "max_window_layers", "layer_types"}
HARMLESS = {
    "attention_dropout",
    "attn_implementation",
    "auto_map",
    "bos_token_id",
    "chunk_size_feed_forward",
    "dtype",
    "eos_token_id",
    "finetuning_task",
    "id2label",
    "initializer_range",
    "label2id",
    "name_or_path",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "pretraining_tp",
    "problem_type",
    "return_dict",
    "sep_token_id",
    "tokenizer_class",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
}
"""Keys about training, generation or other programs."""
ROPE_READ = {
    "rope_type",
    "type",
    "rope_theta",
    "factor",
    "original_max_position_embeddings",
    "beta_fast",
    "beta_slow",
    "low_freq_factor",
    "high_freq_factor",
    "attention_factor",
    "truncate",
    "partial_rotary_factor",
    "mscale",
    "mscale_all_dim",
}


def family_of(config: Mapping[str, Any], where: str) -> Family:
    """Raises CheckpointError for an architecture that is not in the table."""
    kind, classes = config.get("model_type"), config.get("architectures") or []
    if kind not in FAMILIES:
        raise CheckpointError(
            f"{where} has model_type {kind!r} ({', '.join(map(str, classes)) or 'no architectures'}); known are "
            f"{', '.join(FAMILIES)}. Models of other kinds cannot be run here"
        )
    family = FAMILIES[kind]
    if classes and family.causal not in classes:
        raise CheckpointError(f"{where} is of {', '.join(map(str, classes))}; expected {family.causal}")
    return family


def from_hugging_face(config: Mapping[str, Any], *, where: str = "config.json") -> LlamaConfig:
    """Raises CheckpointError for another architecture, or anything that this version would compute otherwise."""
    try:
        return _read(config, where)
    except (TypeError, AttributeError) as error:
        raise CheckpointError(f"{where} has a value of another type than expected: {error}") from None


def _read(config: Mapping[str, Any], where: str) -> LlamaConfig:
    family = family_of(config, where)
    for key, allowed in ONLY.items():
        if key in config and not any(config[key] == value for value in allowed):
            raise CheckpointError(f"{where} has {key} {config[key]!r}; this version computes with {allowed[0]!r} only")
    for key, value in config.items():
        known = key in READ or key in ONLY or key in WINDOW or key in HARMLESS or key.startswith("_")
        if not known and value not in (None, False):
            raise CheckpointError(
                f"{where} has {key} {value!r}, which this version does not know and might have to compute with; "
                "remove the key from a copy of the file if it changes nothing"
            )
    missing = [key for key in SIZES if config.get(key) is None]
    if missing:
        raise CheckpointError(f"{where} has no {', '.join(missing)}")
    told = {**family.defaults, **{key: value for key, value in config.items() if value is not None}}
    _no_window(told, where)
    heads = told["num_attention_heads"]
    bias = bool(told.get("attention_bias", False))
    theta, scaling = rope_from_hugging_face(told, where)
    made = {
        **{key: told[key] for key in SIZES},
        "num_key_value_heads": told.get("num_key_value_heads", heads),
        "head_dim": told.get("head_dim", told["hidden_size"] // heads if type(heads) is int and heads > 0 else 0),
        "max_position_embeddings": told["max_position_embeddings"],
        "rms_norm_eps": told.get("rms_norm_eps", 1e-6),
        "rope_theta": theta,
        "rope_scaling": scaling,
        "tie_word_embeddings": told.get("tie_word_embeddings", False),
        "attention_bias": bias if family.biases is None else family.biases[0],
        "output_bias": bias if family.biases is None else family.biases[1],
        "qk_norm": family.qk_norm,
    }
    return made_of(made, where)


def made_of(made: Mapping[str, Any], where: str) -> LlamaConfig:
    """A configuration, its sizes checked. Raises CheckpointError for sizes that cannot be."""
    for key in (*SIZES, "num_key_value_heads", "head_dim", "max_position_embeddings"):
        value = made.get(key)
        if type(value) is not int or not 1 <= value <= MOST.get(key, MOST_SIZE):
            most = MOST.get(key, MOST_SIZE)
            raise CheckpointError(f"{where} has {key} {value!r}; expected a whole number from 1 to {most:,}")
    try:
        return from_json(LlamaConfig, made, where=where)
    except UsageError as error:
        text = str(error)
        raise CheckpointError(text if text.startswith(where) else f"{where}: {text}") from None


def _no_window(told: Mapping[str, Any], where: str) -> None:
    """Raises CheckpointError where layers attend to a window that is shorter than the context."""
    layers, window = told["num_hidden_layers"], told.get("sliding_window")
    kinds = set(told.get("layer_types") or ())
    strange = kinds - {"full_attention", "sliding_attention"}
    if strange:
        raise CheckpointError(f"{where} has layers of {', '.join(sorted(map(str, strange)))}; expected full_attention")
    if "layer_types" in told:
        used = "sliding_attention" in kinds
    elif "use_sliding_window" in told:
        used = bool(told["use_sliding_window"]) and told.get("max_window_layers", 28) < layers
    else:
        used = told["model_type"] == "llama" and window is not None
    if used and (window is None or window < told["max_position_embeddings"]):
        raise CheckpointError(
            f"{where} has attention to a sliding window of {window} tokens in some layers; this version computes full "
            "attention only"
        )


def rope_from_hugging_face(told: Mapping[str, Any], where: str) -> tuple[float, RopeScaling | None]:
    """Theta and scaling: of `rope_parameters`, or of `rope_theta` and `rope_scaling` as older files have them."""
    rope = {**(told.get("rope_scaling") or {}), **(told.get("rope_parameters") or {})}
    rope = {key: value for key, value in rope.items() if value is not None}
    unknown = sorted(set(rope) - ROPE_READ)
    if unknown:
        raise CheckpointError(f"{where} scales rotary positions with {', '.join(unknown)}, which this version does not")
    theta = rope.get("rope_theta", told.get("rope_theta", 10_000.0))
    kind = rope.get("rope_type", rope.get("type", "default"))
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise CheckpointError(
            f"{where} turns a part of each head ({rope['partial_rotary_factor']}); expected all of it"
        )
    if kind == "default":
        return theta, None
    if kind not in ("linear", "yarn", "llama3"):
        raise CheckpointError(
            f"{where} scales rotary positions in the way {kind!r}; known are default, linear, yarn and llama3"
        )
    if kind == "yarn":
        _plain_yarn(rope, where)
    made = {
        "kind": kind,
        "factor": rope.get("factor"),
        "original_context": rope.get("original_max_position_embeddings", told["max_position_embeddings"]),
        **{key: rope[key] for key in ("beta_fast", "beta_slow") if key in rope and kind == "yarn"},
        **{key: rope[key] for key in ("low_freq_factor", "high_freq_factor") if key in rope and kind == "llama3"},
    }
    try:
        return theta, from_json(RopeScaling, made, where=f"{where}.rope_parameters")
    except UsageError as error:
        raise CheckpointError(str(error)) from None


def _plain_yarn(rope: Mapping[str, Any], where: str) -> None:
    """Raises CheckpointError for another temperature than YaRN's own, or without its rounding."""
    odd = [key for key in ("mscale", "mscale_all_dim", "attention_factor") if key in rope]
    if odd or rope.get("truncate", True) is not True:
        raise CheckpointError(
            f"{where} changes YaRN by {', '.join(odd) or 'truncate'}; this version computes it as it was published"
        )


def family_for(config: LlamaConfig) -> Family:
    """The family that has such models. Raises CheckpointError where none has."""
    if config.qk_norm:
        if config.attention_bias != config.output_bias:
            raise CheckpointError("no known family has normed queries and biases in a part of its attention alone")
        return FAMILIES["qwen3"]
    if config.output_bias and not config.attention_bias:
        raise CheckpointError("no known family has a bias in the attention's output alone")
    return FAMILIES["qwen2" if config.attention_bias and not config.output_bias else "llama"]


def to_hugging_face(config: LlamaConfig, *, dtype: str) -> dict[str, Any]:
    """config.json as transformers 5 writes it. dtype: of the weights. Raises CheckpointError where no family fits."""
    family = family_for(config)
    told = {key: getattr(config, key) for key in SIZES}
    if family.biases is None:
        told["attention_bias"] = config.attention_bias
    return {
        **told,
        "architectures": [family.causal],
        "model_type": family.name,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_position_embeddings,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_parameters": _rope_to_hugging_face(config),
        "tie_word_embeddings": config.tie_word_embeddings,
        "hidden_act": "silu",
        "dtype": dtype,
        "use_cache": True,
    }


def theta_of(config: LlamaConfig) -> float:
    """Theta with NTK-aware growth carried out, which other programs do not know as a way of its own."""
    scaling = config.rope_scaling
    if scaling is None or scaling.kind != "ntk":
        return config.rope_theta
    return float(config.rope_theta * scaling.factor ** (config.head_dim / (config.head_dim - 2)))


def _rope_to_hugging_face(config: LlamaConfig) -> dict[str, Any]:
    scaling = config.rope_scaling
    told: dict[str, Any] = {"rope_theta": theta_of(config), "rope_type": "default"}
    if scaling is None or scaling.kind == "ntk":
        return told
    told |= {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind != "linear":
        told["original_max_position_embeddings"] = scaling.original_context
    extra = {"yarn": ("beta_fast", "beta_slow"), "llama3": ("low_freq_factor", "high_freq_factor")}
    return told | {key: getattr(scaling, key) for key in extra.get(scaling.kind, ())}


def ours(config: LlamaConfig) -> dict[str, Any]:
    """config.json of a folder of ours."""
    return {"model_type": "llama", **to_json(config)}

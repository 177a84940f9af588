"""What configurations of other programs say is mapped, or refused where it would be computed otherwise."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from gguf import GGUFWriter

from riallm.checkpoint.gguf import open_gguf
from riallm.core.config import from_json
from riallm.core.errors import CheckpointError
from riallm.models import foreign_gguf
from riallm.models.foreign_config import FAMILIES, from_hugging_face, ours, to_hugging_face
from riallm.models.llama import LlamaConfig
from riallm.nn.rope import RopeScaling, frequencies

CONFIG = LlamaConfig(
    vocab_size=100,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=512,
    rms_norm_eps=1e-6,
    rope_theta=50_000.0,
)
PLAIN: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "rope_theta": 50_000.0,
}


def with_scaling(**told: Any) -> LlamaConfig:
    return dataclasses.replace(CONFIG, rope_scaling=RopeScaling(**told))


SHAPES: dict[str, LlamaConfig] = {
    "llama": CONFIG,
    "llama with biases": dataclasses.replace(CONFIG, attention_bias=True, output_bias=True),
    "qwen2": dataclasses.replace(CONFIG, attention_bias=True, tie_word_embeddings=True),
    "qwen3": dataclasses.replace(CONFIG, qk_norm=True, head_dim=32),
    "qwen3 with biases": dataclasses.replace(CONFIG, qk_norm=True, attention_bias=True, output_bias=True),
    "linear": with_scaling(kind="linear", factor=2.0, original_context=512),
    "yarn": with_scaling(kind="yarn", factor=4.0, original_context=128, beta_fast=16.0, beta_slow=2.0),
    "llama3": with_scaling(kind="llama3", factor=32.0, original_context=8192),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_configuration_comes_back_from_hugging_faces_form(name: str) -> None:
    told = json.loads(json.dumps(to_hugging_face(SHAPES[name], dtype="bfloat16")))
    assert from_hugging_face(told) == SHAPES[name]
    assert told["architectures"] == [FAMILIES[told["model_type"]].causal]


@pytest.mark.parametrize("name", SHAPES)
def test_transformers_reads_what_we_write_and_writes_what_we_read(tmp_path: Path, name: str) -> None:
    told = to_hugging_face(SHAPES[name], dtype="bfloat16")
    (tmp_path / "config.json").write_text(json.dumps(told))
    found = transformers.AutoConfig.from_pretrained(tmp_path)
    assert found.model_type == told["model_type"] and found.head_dim == SHAPES[name].head_dim
    found.save_pretrained(tmp_path / "again")
    assert from_hugging_face(json.loads((tmp_path / "again/config.json").read_text())) == SHAPES[name]


def test_what_older_files_say_means_the_same() -> None:
    assert from_hugging_face(PLAIN) == CONFIG
    old = {**PLAIN, "rope_scaling": {"type": "linear", "factor": 2.0}}
    new = {**PLAIN, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 50_000.0}}
    del new["rope_theta"]
    assert from_hugging_face(old) == from_hugging_face(new) == SHAPES["linear"]
    few = {key: value for key, value in PLAIN.items() if key not in ("num_key_value_heads", "rope_theta")}
    assert from_hugging_face(few).num_key_value_heads == 4 and from_hugging_face(few).rope_theta == 10_000.0
    assert from_hugging_face({**PLAIN, "rope_scaling": None, "rope_parameters": None, "head_dim": None}) == CONFIG
    harmless = {"torch_dtype": "bfloat16", "use_cache": True, "_name_or_path": "x", "bos_token_id": 1, "odd": None}
    assert from_hugging_face({**PLAIN, **harmless}) == CONFIG


def test_a_window_that_is_not_in_use_changes_nothing() -> None:
    qwen = {**PLAIN, "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "sliding_window": 128}
    for told in (
        {"use_sliding_window": False},
        {"use_sliding_window": True, "max_window_layers": 3},
        {"use_sliding_window": True, "max_window_layers": 0, "sliding_window": 512},
        {"layer_types": ["full_attention"] * 3},
    ):
        assert from_hugging_face({**qwen, **told}).attention_bias
    for told in (
        {"use_sliding_window": True, "max_window_layers": 2},
        {"layer_types": ["full_attention", "sliding_attention", "full_attention"]},
    ):
        with pytest.raises(CheckpointError, match="sliding window of 128 tokens in some layers"):
            from_hugging_face({**qwen, **told})


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another family": ({"model_type": "mixtral"}, "model_type 'mixtral' .*known are llama, qwen2, qwen3"),
    "no family": ({"model_type": None}, "known are llama, qwen2, qwen3"),
    "another head": ({"architectures": ["LlamaForSequenceClassification"]}, "expected LlamaForCausalLM"),
    "experts": ({"num_local_experts": 8}, "num_local_experts 8; this version computes with 0 only"),
    "mlp_bias": ({"mlp_bias": True}, "mlp_bias True; this version computes with False only"),
    "activation": ({"hidden_act": "gelu"}, "hidden_act 'gelu'; this version computes with 'silu' only"),
    "half turned": ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
    "half turned, new": ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "turns a part of each head"),
    "quantised": ({"quantization_config": {"bits": 4}}, "quantization_config"),
    "a window": ({"sliding_window": 128}, "sliding window of 128 tokens"),
    "other layers": ({"layer_types": ["linear_attention"]}, "layers of linear_attention"),
    "an unknown key": ({"logit_cap": 30.0}, "logit_cap 30.0, which this version does not know"),
    "dynamic": ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "in the way 'dynamic'; known are default"),
    "longrope": ({"rope_scaling": {"rope_type": "longrope", "short_factor": [1]}}, "short_factor, which this version"),
    "another yarn": (
        {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "attention_factor": 1.0}},
        "changes YaRN by attention_factor",
    ),
    "unrounded yarn": ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "truncate": False}}, "by truncate"),
    "no factor": ({"rope_scaling": {"rope_type": "linear"}}, "factor"),
    "no sizes": ({"hidden_size": None}, "has no hidden_size"),
    "a size that is text": ({"vocab_size": "many"}, "vocab_size 'many'; expected a whole number"),
    "no heads": ({"num_key_value_heads": 0}, "num_key_value_heads 0; expected a whole number from 1"),
    "odd heads": ({"num_key_value_heads": 3}, "must be a multiple"),
    "endless layers": ({"num_hidden_layers": 1 << 40}, "expected a whole number from 1 to 10,000"),
    "nonsense": ({"rope_scaling": 5}, "a value of another type than expected"),
    "nonsense layers": ({"layer_types": 5}, "a value of another type than expected"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_computed_otherwise_is_refused(name: str) -> None:
    change, complaint = REFUSED[name]
    with pytest.raises(CheckpointError, match=complaint) as caught:
        from_hugging_face({**PLAIN, **change}, where="here/config.json")
    assert "here/config.json" in str(caught.value)


def test_what_no_family_has_is_refused() -> None:
    for odd in ({"output_bias": True}, {"qk_norm": True, "attention_bias": True}):
        with pytest.raises(CheckpointError, match="no known family has"):
            to_hugging_face(dataclasses.replace(CONFIG, **odd), dtype="float32")
    with pytest.raises(CheckpointError, match="GGUF's qwen3 has no biases"):
        foreign_gguf.metadata_of(SHAPES["qwen3 with biases"], name="x")


def test_ntk_scaling_is_carried_out_in_theta() -> None:
    config = with_scaling(kind="ntk", factor=4.0, original_context=128)
    again = from_hugging_face(to_hugging_face(config, dtype="float32"))
    assert again.rope_scaling is None
    found, expected = (frequencies(one.head_dim, one.rope_theta, one.rope_scaling)[0] for one in (again, config))
    torch.testing.assert_close(found, expected)


def test_our_own_form_is_read_by_our_own_reader() -> None:
    for config in SHAPES.values():
        told = json.loads(json.dumps(ours(config)))
        assert told.pop("model_type") == "llama"
        assert from_json(LlamaConfig, told) == config


def gguf_with(path: Path, told: dict[str, Any], *, arch: str = "llama", factors: torch.Tensor | None = None) -> Path:
    """A file that says the least, and `told`."""
    writer = GGUFWriter(path, arch)
    least = {"embedding_length": 64, "block_count": 3, "feed_forward_length": 96, "attention.head_count": 4}
    for key, value in {**least, "attention.head_count_kv": 2, "context_length": 512, **told}.items():
        if value is None:
            continue
        add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
        if isinstance(value, list):
            writer.add_array(f"{arch}.{key}", value)
        else:
            add[type(value)](f"{arch}.{key}", value)
    writer.add_tensor("token_embd.weight", torch.zeros(100, 64).numpy())
    if factors is not None:
        writer.add_tensor("rope_freqs.weight", factors.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_metadata_of_a_file_is_mapped(tmp_path: Path) -> None:
    least = {"attention.layer_norm_rms_epsilon": 1e-6, "rope.freq_base": 5e4}
    for told in ({}, {"attention.sliding_window": 0}, {"attention.sliding_window": 512}, {"expert_count": 0}):
        model = open_gguf(gguf_with(tmp_path / "x.gguf", {**least, **told}))
        assert foreign_gguf.config_of(model, where="x") == dataclasses.replace(CONFIG, tie_word_embeddings=True)


GGUF_REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "experts": ({"expert_count": 8}, "expert_count 8; this version computes with 0 only"),
    "a window": ({"attention.sliding_window": 128}, "attention.sliding_window 128"),
    "an unknown key": ({"attn_logit_softcapping": 30.0}, "attn_logit_softcapping 30.0, which this version"),
    "half turned": ({"rope.dimension_count": 8}, "rope.dimension_count 8; expected 16, the size of a head"),
    "other values": ({"attention.value_length": 8}, "attention.value_length 8"),
    "longrope": ({"rope.scaling.type": "longrope"}, "in the way 'longrope'; known are none, linear and yarn"),
    "no layers": ({"block_count": None}, "has no block_count"),
    "heads of each layer": ({"attention.head_count": [4, 4, 4]}, "has no attention.head_count"),
    "kv heads of each layer": ({"attention.head_count_kv": [2, 2, 2]}, "num_key_value_heads"),
    "no number": ({"rope.freq_base": float("nan")}, "where it should have a number"),
}


@pytest.mark.parametrize("name", GGUF_REFUSED)
def test_what_a_file_would_compute_otherwise_is_refused(tmp_path: Path, name: str) -> None:
    change, complaint = GGUF_REFUSED[name]
    model = open_gguf(gguf_with(tmp_path / "x.gguf", change))
    with pytest.raises(CheckpointError, match=complaint):
        foreign_gguf.config_of(model, where="x")


def test_unknown_architectures_list_the_known_ones(tmp_path: Path) -> None:
    model = open_gguf(gguf_with(tmp_path / "x.gguf", {}, arch="gemma3"))
    with pytest.raises(CheckpointError, match="architecture 'gemma3'; known are llama, qwen2, qwen3"):
        foreign_gguf.config_of(model, where="x")


@pytest.mark.parametrize("factor", [8.0, 32.0])
@pytest.mark.parametrize("head_dim", [16, 64, 128])
def test_llama_3s_scaling_is_known_by_its_factors(tmp_path: Path, factor: float, head_dim: int) -> None:
    scaling = RopeScaling(kind="llama3", factor=factor, original_context=8192)
    factors = foreign_gguf.factors_of(scaling, 5e5, head_dim)
    inverse, _ = frequencies(head_dim, 5e5, scaling)
    plain, _ = frequencies(head_dim, 5e5)
    torch.testing.assert_close(plain / factors, inverse)
    told = {"rope.freq_base": 5e5, "attention.key_length": head_dim, "attention.value_length": head_dim}
    model = open_gguf(gguf_with(tmp_path / "x.gguf", told, factors=factors))
    assert foreign_gguf.config_of(model, where="x").rope_scaling == scaling
    model = open_gguf(gguf_with(tmp_path / "x.gguf", told, factors=factors * 1.01))
    with pytest.raises(CheckpointError, match="not as a Llama 3 does"):
        foreign_gguf.config_of(model, where="x")

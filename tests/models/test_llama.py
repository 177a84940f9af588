"""The Llama shape against transformers: logits of Llama, Qwen2 and Qwen3, and rotary positions of every scaling."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from riallm.models import llama
from riallm.models.zoo import build
from riallm.nn.meta import TokenMeta
from riallm.nn.rope import RopeScaling, frequencies

SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
}
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "llama": (LlamaConfig(**SIZES, head_dim=16), {"head_dim": 16}),
    "llama, biases": (
        LlamaConfig(**SIZES, head_dim=16, attention_bias=True),
        {"head_dim": 16, "attention_bias": True, "output_bias": True},
    ),
    "qwen2": (Qwen2Config(**SIZES), {"head_dim": 16, "attention_bias": True}),
    "qwen3": (Qwen3Config(**SIZES, head_dim=32), {"head_dim": 32, "qk_norm": True}),
}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_transformers(kind: str, tied: bool) -> None:
    config, options = KINDS[kind]
    config.tie_word_embeddings = tied
    torch.manual_seed(0)
    theirs = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.3)  # norms' gains and biases too: a wrong name would otherwise go unseen
    ours = llama.Llama(llama.LlamaConfig(**SIZES, tie_word_embeddings=tied, **options)).eval()
    named = {name.removeprefix("model."): tensor for name, tensor in theirs.named_parameters()}
    ours.load_state_dict(named)
    tokens = torch.randint(0, 97, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found = ours.logits(ours(tokens, TokenMeta.plain(2, 40)).hidden)
        torch.testing.assert_close(found, theirs(tokens).logits, atol=1e-4, rtol=1e-4)


SCALINGS: dict[str, dict[str, Any]] = {
    "linear": {"factor": 4.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 2048},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 2048,
    },
}


@pytest.mark.parametrize("kind", SCALINGS)
def test_scaled_positions_are_those_of_transformers(kind: str) -> None:
    parameters = {"rope_type": kind, "rope_theta": 500_000.0, **SCALINGS[kind]}
    config = LlamaConfig(**{**SIZES, "max_position_embeddings": 8192}, head_dim=128, rope_parameters=parameters)
    wanted, temperature = ROPE_INIT_FUNCTIONS[kind](config, "cpu")
    scaling = RopeScaling(kind=kind, factor=SCALINGS[kind]["factor"], original_context=2048)  # type: ignore[arg-type]
    found, scale = frequencies(128, 500_000.0, scaling)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0)
    assert scale == pytest.approx(temperature)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("ruvltra-medium", 3_085_938_688),  # as the published card of Qwen2.5-3B has it
        ("ruvltra-medium-as-written", 2_777_548_800),
        ("ruvltra-small", 494_032_768),
        ("qwen2.5-1.5b", 1_543_714_304),
    ],
)
def test_the_shapes_count_what_they_come_to(name: str, parameters: int) -> None:
    assert build(name).costs().num_parameters == parameters

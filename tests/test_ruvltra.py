"""The usage blocks of the RuvLTRA document, in Python, at a width that a test can hold; learning is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from riallm.core.errors import CheckpointError, UsageError
from riallm.ruvltra import (
    AgentRouter,
    GenerateParams,
    GGUFLoader,
    RuvLtraMediumConfig,
    RuvLtraMediumModel,
    Trajectory,
)


def narrow(config: RuvLtraMediumConfig) -> RuvLtraMediumConfig:
    """The document's settings; the sizes are ours."""
    config.hidden_size, config.intermediate_size, config.num_hidden_layers = 64, 96, 2
    config.num_attention_heads, config.num_kv_heads, config.head_dim, config.vocab_size = 4, 2, 16, 300
    config.max_position_embeddings = 128
    return config


def made(config: RuvLtraMediumConfig) -> RuvLtraMediumModel:
    with pytest.warns(UserWarning, match="drawn at random, and answers mean nothing"):
        return RuvLtraMediumModel(config)


def test_basic_inference() -> None:
    config = narrow(RuvLtraMediumConfig.base())
    model = made(config)
    input_ids = [151, 95, 11, 19]
    positions = list(range(len(input_ids)))
    logits = model.forward(input_ids, positions)
    assert logits.shape == (4 * config.vocab_size,)
    next_token = int(logits[len(logits) - config.vocab_size :].argmax())
    assert model.generate(input_ids, GenerateParams(max_tokens=1, temperature=0.0)).ids == (next_token,)
    with pytest.raises(UsageError, match="positions count from 0 to 3"):
        model.forward(input_ids, [0, 1, 2, 4])


def test_code_generation() -> None:
    model = made(narrow(RuvLtraMediumConfig.coder()))
    with pytest.raises(UsageError, match="does not learn while it serves, yet"):
        model.enable_sona_with_hooks([8, 16, 24, 28])
    prompt = "fn fibonacci(n: u32) -> u32 {"
    output = model.generate(prompt, GenerateParams(max_tokens=16, temperature=0.2, top_p=0.95))
    assert len(output.ids) == 16 and output.text


def test_agent_routing() -> None:
    config = narrow(RuvLtraMediumConfig.agent())
    model = made(config)
    assert config.enable_agent_routing
    assert config.sona_hooks.hnsw_m == 32 and config.sona_hooks.hnsw_ef_construction == 400
    for call in (model.sona, lambda: AgentRouter(None), lambda: Trajectory("code-generation")):
        with pytest.raises(UsageError, match="does not learn while it serves, yet"):
            call()


def test_memory_and_variants_are_the_document_s() -> None:
    config = RuvLtraMediumConfig.base()
    assert config.use_paged_attention and config.paged_config.page_size == 64
    assert config.speculative_config.lookahead == 4 and config.speculative_config.acceptance_threshold == 0.7
    found = [
        (each.temperature, each.top_p) for each in (config, RuvLtraMediumConfig.coder(), RuvLtraMediumConfig.agent())
    ]
    assert found == [(0.7, 0.9), (0.2, 0.95), (0.3, 0.85)]
    assert RuvLtraMediumConfig.coder().sona_hooks.hook_layers == (8, 16, 24, 28)
    assert config.as_written().num_hidden_layers == 32 and not config.as_written().attention_bias


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the narrow shape, by our own writer from a random Qwen2 of Hugging Face's form."""
    from transformers import AutoModelForCausalLM, Qwen2Config

    from riallm.models.foreign_write import convert

    folder = tmp_path_factory.mktemp("ruvltra")
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "hf")
    convert(folder / "hf", folder / "small.gguf", to="gguf", compression="none", dtype="bfloat16")
    return folder / "small.gguf"


def test_from_gguf_and_speculative_decoding(gguf_file: Path) -> None:
    config = narrow(RuvLtraMediumConfig.base())
    plain = GGUFLoader(gguf_file).load_ruvltra_medium(config)
    wanted = plain.generate("Once upon a time", GenerateParams(max_tokens=24, temperature=0.0))
    config.use_speculative_decoding = True
    config.draft_model_path = gguf_file
    model = GGUFLoader(gguf_file).load_ruvltra_medium(config)
    output = model.generate("Once upon a time", GenerateParams(max_tokens=24, temperature=0.0))
    assert output.ids == wanted.ids
    with pytest.raises(CheckpointError, match="not of the configuration's shape"):
        GGUFLoader(gguf_file).load_ruvltra_medium()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"quantization": "q5_k_m"}, "quantization 'q5_k_m' cannot be made here"),
        ({"use_speculative_decoding": True}, "needs draft_model_path"),
        ({"use_paged_attention": False}, "in pages of 64 tokens, always"),
    ],
)
def test_what_cannot_be_honoured_is_refused(change: dict[str, object], complaint: str) -> None:
    config = narrow(RuvLtraMediumConfig.base())
    for name, value in change.items():
        setattr(config, name, value)
    with pytest.raises(UsageError, match=complaint):
        RuvLtraMediumModel(config)

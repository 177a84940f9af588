"""Models in memory: whatever they were kept as, they compute what their weights say; what does not fit is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from riallm.checkpoint import folder as folders
from riallm.core.errors import CheckpointError, UsageError
from riallm.models.load import load_ria
from riallm.models.resident import load
from riallm.nn.linear import PackedEmbedding, PackedLinear
from riallm.nn.meta import TokenMeta
from riallm.quant.packed import Kind
from riallm.quant.prepared import whole
from riallm.testing.tiny import write_tiny

IDS = torch.randint(0, 97, (1, 30), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2 of Hugging Face's form."""
    config = Qwen2Config(
        vocab_size=97,
        hidden_size=256,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("qwen")
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    model.save_pretrained(folder)
    return folder


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model.logits(model(IDS, TokenMeta.plain(*IDS.shape)).hidden)
    return found


@pytest.mark.parametrize("kind", [None, "int8", "int4", "nf4"])
def test_a_foreign_model_computes_what_its_weights_say(qwen: Path, kind: Kind | None) -> None:
    resident = load(qwen, kind=kind, dtype="float32")
    plain = load(qwen, dtype="float32")
    packed = {name: module for name, module in resident.model.named_modules() if hasattr(module, "prepared")}
    for name, module in packed.items():
        plain.model.get_submodule(name).weight.data.copy_(whole(module.prepared))  # type: ignore[union-attr, operator]
    assert len(packed) == (0 if kind is None else 15)
    assert kind is None or isinstance(packed["embed_tokens"], PackedEmbedding)
    assert kind is None or packed["embed_tokens"].prepared.kind == "int8"
    assert kind is None or isinstance(packed["layers.1.mlp.up_proj"], PackedLinear)
    wanted = logits(plain.model)
    if kind is None:
        torch.testing.assert_close(
            wanted, AutoModelForCausalLM.from_pretrained(qwen)(IDS).logits.detach(), atol=1e-4, rtol=1e-4
        )
    # Activations are rounded to 8 bits on the way: near, not equal.
    assert float((logits(resident.model) - wanted).abs().mean()) < 0.02 * float(wanted.std())
    assert resident.costs == plain.costs and resident.identity != load(qwen).identity
    if kind is not None:
        assert resident.weight_bytes < plain.weight_bytes / (3 if kind == "int8" else 4)


def test_what_ships_is_run_as_it_is_kept(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "tiny", context=64)
    resident = load(folder, dtype="float32")
    assert any(isinstance(module, PackedLinear) for module in resident.model.modules())
    wanted = logits(load_ria(folder))
    assert float((logits(resident.model) - wanted).abs().mean()) < 0.02 * float(wanted.std())
    assert "tokenizer.json" in resident.files


def test_what_does_not_fit_is_refused(qwen: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"dtype is 'float16'; there are bfloat16, float32"):
        load(qwen, dtype="float16")
    folders.write(tmp_path / "odd", {"model_type": "gpt"}, {"x": torch.zeros(2)})
    with pytest.raises(CheckpointError, match=r"odd/config.json has model_type 'gpt'; there are 'ria' and 'llama'"):
        load(tmp_path / "odd")
    stored = folders.read(write_tiny(tmp_path / "tiny", context=64))
    few = {name: stored.tensors[name] for name in stored.tensors if name != "norm.weight"}
    folders.write(tmp_path / "less", stored.config, few)
    with pytest.raises(CheckpointError, match=r"less does not fit its configuration: missing norm.weight"):
        load(tmp_path / "less")

"""Models of transformers and of the `gguf` package under our names, there and back: the same numbers everywhere."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from gguf import GGMLQuantizationType as Type
from torch import Tensor

from riallm.checkpoint import folder, huggingface
from riallm.checkpoint.tensors import widened
from riallm.core.errors import CheckpointError, UsageError
from riallm.models import foreign
from riallm.models.foreign_config import ours
from riallm.models.foreign_write import COMPRESSIONS, convert, write_hugging_face
from riallm.models.llama import Llama, LlamaConfig
from riallm.nn.meta import TokenMeta
from riallm.quant.packed import Packed, dequantise, quantise

SIZES = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
MODELS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "llama": (transformers.LlamaConfig, {}),
    "llama-tied-biases": (
        transformers.LlamaConfig,
        {"tie_word_embeddings": True, "attention_bias": True, "head_dim": 32},
    ),
    "llama-3": (transformers.LlamaConfig, {"rope_parameters": LLAMA3, "max_position_embeddings": 16384}),
    "llama-linear": (
        transformers.LlamaConfig,
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
    ),
    "qwen2": (transformers.Qwen2Config, {}),
    "qwen2-tied": (transformers.Qwen2Config, {"tie_word_embeddings": True, "rms_norm_eps": 1e-5}),
    "qwen2-yarn": (transformers.Qwen2Config, {"rope_parameters": YARN}),
    "qwen3": (transformers.Qwen3Config, {"head_dim": 32}),
    "qwen3-tied": (transformers.Qwen3Config, {"head_dim": 16, "tie_word_embeddings": True}),
    "qwen3-128": (transformers.Qwen3Config, {"head_dim": 128}),
}
IDS = torch.arange(24)[None] * 7 % 96


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """transformers says much that is not about us."""
    transformers.utils.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", UserWarning)
        yield


def random_model(name: str) -> Any:
    """Random weights, norms and biases too: a one or a zero would hide where they went."""
    kind, options = MODELS[name]
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(kind(**{**SIZES, **options})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.normal_(1.0, 0.3)
    return model


def logits(path: Path) -> Tensor:
    """Of our model on what is stored there."""
    stored = foreign.open_model(path)
    model = Llama(foreign.config_of(stored)).eval()
    folder.fill(model, stored, what=str(path))
    with torch.inference_mode():
        return model.logits(model(IDS, TokenMeta.plain(1, IDS.shape[1])).hidden)


def theirs(path: Path) -> Tensor:
    """Of transformers on a folder."""
    return ran(transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32))


def theirs_of_gguf(path: Path) -> Tensor:
    """Of transformers on a GGUF file, by its own reader."""
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    told = load_gguf_checkpoint(str(path))["config"]
    config = transformers.AutoConfig.for_model(**told)
    model = transformers.AutoModelForCausalLM.from_config(config)
    tensors = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model)["tensors"]
    lost = model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=False)
    assert not lost.unexpected_keys and lost.missing_keys in ([], ["lm_head.weight"])
    model.tie_weights()
    return ran(model)


def ran(model: Any) -> Tensor:
    with torch.inference_mode():
        found: Tensor = model.eval()(IDS).logits
    return found


@pytest.mark.parametrize("name", MODELS)
def test_every_way_around_gives_the_same_logits(tmp_path: Path, name: str) -> None:
    model = random_model(name)
    model.save_pretrained(tmp_path / "hf", max_shard_size="100KB")
    with torch.inference_mode():
        expected = model(IDS).logits
    ways = [tmp_path / "hf", tmp_path / "split", tmp_path / "m.gguf", tmp_path / "back", tmp_path / "again.gguf"]
    for source, target, to in zip(ways, ways[1:], ("split", "gguf", "hf", "gguf"), strict=False):
        convert(source, target, to=to)  # type: ignore[arg-type]
    for way in ways:
        torch.testing.assert_close(logits(way), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(theirs(tmp_path / "back"), theirs(tmp_path / "hf"))
    config = foreign.open_model(ways[1]).config
    assert all(foreign.open_model(way).config == config for way in ways[2:])


GGUF_OF_TRANSFORMERS = ["llama", "qwen2", "qwen2-tied", "qwen3-128"]
"""Its reader knows no scaling of rotary positions, and no head of a Qwen3 but of 128."""


@pytest.mark.parametrize("name", GGUF_OF_TRANSFORMERS)
@pytest.mark.parametrize(("compression", "dtype"), [("none", "float16"), ("none", "bfloat16"), ("q8_0", None)])
def test_transformers_reads_our_gguf(tmp_path: Path, name: str, compression: str, dtype: str | None) -> None:
    """An independent reader of names, metadata and the order of rows."""
    random_model(name).bfloat16().save_pretrained(tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "m.gguf", to="gguf", compression=compression, dtype=dtype)
    vectors = [tensor for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors if len(tensor.shape) == 1]
    assert vectors and all(tensor.tensor_type == Type.F32 for tensor in vectors), "llama.cpp adds no others"
    found = theirs_of_gguf(tmp_path / "m.gguf")
    torch.testing.assert_close(found, logits(tmp_path / "m.gguf"), rtol=1e-4, atol=1e-4)


ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "llama-3": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
}


def permuted(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """As llama.cpp's converter writes it (LlamaModel.permute of convert_hf_to_gguf.py)."""
    shape = (heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return np.ascontiguousarray(weight.reshape(shape).swapaxes(1, 2).reshape(weight.shape))


def written_by_the_package(model: Any, path: Path, name: str, kinds: dict[str, Type]) -> dict[str, Any]:
    """The model by the package's own name table. kinds: part of a name -> type. Gives the decoded tensors by their
    names there, as they were before permutation."""
    config, arch = model.config, ARCHITECTURES[name]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if name == "qwen3":
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    decoded = {}
    for full, parameter in model.state_dict().items():
        data = parameter.numpy()
        theirs = names.get_name(full, try_suffixes=(".weight", ".bias"))
        assert theirs is not None, full
        kind = next((kind for part, kind in kinds.items() if part in full), Type.F32)
        raw = gguf.quants.quantize(data, kind) if kind != Type.F32 else data
        decoded[full] = gguf.quants.dequantize(raw, kind)
        if arch == gguf.MODEL_ARCH.LLAMA and ("q_proj" in full or "k_proj" in full):
            raw = permuted(raw, config.num_attention_heads if "q_proj" in full else config.num_key_value_heads)
        writer.add_tensor(theirs, raw, raw_dtype=kind)
    if config.rope_parameters["rope_type"] == "llama3":
        inverse, _ = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
        plain = config.rope_parameters["rope_theta"] ** -(torch.arange(0, head_dim, 2).double() / head_dim)
        writer.add_tensor("rope_freqs.weight", (plain / inverse.double()).float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return decoded


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_files_of_the_package_are_read_block_by_block(tmp_path: Path, name: str) -> None:
    model = random_model(name)
    kinds = {"q_proj.weight": Type.Q4_0, "k_proj.weight": Type.Q8_0, "gate_proj": Type.Q5_0, "embed": Type.F16}
    decoded = written_by_the_package(model, tmp_path / "m.gguf", name, kinds)
    stored = foreign.open_model(tmp_path / "m.gguf")
    assert stored.tensors.info("layers.0.self_attn.q_proj.weight").kept == "int4"
    assert stored.tensors.info("layers.0.self_attn.k_proj.weight").kept == "int8"
    assert stored.tensors.info("embed_tokens.weight").kept == "float16"
    for full, expected in decoded.items():
        found = widened(stored.tensors[full.removeprefix("model.")], torch.float32)
        assert torch.equal(found, torch.from_numpy(expected.astype(np.float32))), full
    model.load_state_dict({full: torch.from_numpy(data.astype(np.float32)) for full, data in decoded.items()})
    with torch.inference_mode():
        torch.testing.assert_close(logits(tmp_path / "m.gguf"), model(IDS).logits, rtol=1e-4, atol=1e-4)


def test_superblocks_keep_their_bytes_when_their_rows_move(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=256,
        intermediate_size=256,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=32,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    weights: dict[str, Any] = {name: torch.randn(shape) for name, shape in foreign.shapes(config).items()}
    for name, kind, width in (("q_proj", "q4_k", 144), ("k_proj", "q6_k", 210)):
        rows = weights[f"layers.0.self_attn.{name}.weight"].shape[0]
        codes = torch.randint(0, 256, (rows, width), dtype=torch.uint8)
        weights[f"layers.0.self_attn.{name}.weight"] = Packed(kind=kind, codes=codes, scales=None)  # type: ignore[arg-type]
    folder.write(tmp_path / "split", ours(config), weights)
    convert(tmp_path / "split", tmp_path / "m.gguf", to="gguf")
    raw = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    for name, theirs, heads in (("q_proj", "attn_q", 2), ("k_proj", "attn_k", 1)):
        codes = weights[f"layers.0.self_attn.{name}.weight"].codes
        assert np.array_equal(raw[f"blk.0.{theirs}.weight"].data, permuted(codes.numpy(), heads))
    stored = foreign.open_model(tmp_path / "m.gguf")
    for name in ("q_proj", "k_proj"):
        found = stored.tensors[f"layers.0.self_attn.{name}.weight"]
        assert isinstance(found, Packed)
        assert torch.equal(found.codes, weights[f"layers.0.self_attn.{name}.weight"].codes)


@pytest.mark.parametrize("compression", ["8bit", "4bit", "nf4", "q8_0"])
def test_compressed_models_hold_what_quantising_gives(tmp_path: Path, compression: str) -> None:
    model = random_model("qwen2")
    model.bfloat16().save_pretrained(tmp_path / "hf")
    told = convert(tmp_path / "hf", tmp_path / "packed", compression=compression)
    stored, kind = foreign.open_model(tmp_path / "packed"), COMPRESSIONS[compression]
    assert kind is not None and told.kept[kind] >= 8
    for name, parameter in model.state_dict().items():
        mine = stored.tensors[name.removeprefix("model.")]
        if parameter.ndim == 1:
            assert isinstance(mine, Tensor) and torch.equal(mine, parameter)
        elif isinstance(mine, Packed):
            spared = "int8" if name.startswith(("model.embed_tokens", "lm_head")) else kind
            assert mine.kind == spared
            assert torch.equal(dequantise(mine), dequantise(quantise(parameter, spared))), name
        else:
            assert parameter.numel() < 4096 or (parameter.shape[1] % 64 and kind == "nf4"), name


def test_what_is_packed_stays_packed_where_the_form_can(tmp_path: Path) -> None:
    random_model("llama").save_pretrained(tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "packed", compression="4bit")
    convert(tmp_path / "packed", tmp_path / "m.gguf", to="gguf")
    convert(tmp_path / "m.gguf", tmp_path / "back")
    first, last = foreign.open_model(tmp_path / "packed").tensors, foreign.open_model(tmp_path / "back").tensors
    for name in first:
        left, right = first[name], last[name]
        if isinstance(left, Packed):
            assert isinstance(right, Packed) and torch.equal(left.codes, right.codes)
    convert(tmp_path / "packed", tmp_path / "plain", to="hf")
    assert huggingface.read(tmp_path / "plain").tensors.info("lm_head.weight").kept == "bfloat16"
    with pytest.raises(CheckpointError, match="kept as nf4, which GGUF files do not have"):
        convert(tmp_path / "hf", tmp_path / "x.gguf", to="gguf", compression="nf4")
    with pytest.raises(UsageError, match="hold plain tensors; --compression 4bit needs another form"):
        convert(tmp_path / "hf", tmp_path / "x", to="hf", compression="4bit")
    with pytest.raises(UsageError, match=r"must end with \.gguf"):
        convert(tmp_path / "hf", tmp_path / "x", to="gguf")
    with pytest.raises(UsageError, match="compressed as one of none, 8bit"):
        convert(tmp_path / "hf", tmp_path / "x", compression="2bit")


def test_a_large_model_is_written_in_several_files(tmp_path: Path) -> None:
    random_model("qwen3").save_pretrained(tmp_path / "hf")
    stored = foreign.open_model(tmp_path / "hf")
    write_hugging_face(tmp_path / "many", stored, stored.tensors, shard_bytes=50_000)
    names = sorted(path.name for path in (tmp_path / "many").glob("*.safetensors"))
    assert len(names) > 3 and names[0] == f"model-00001-of-{len(names):05d}.safetensors"
    index = json.loads((tmp_path / "many" / huggingface.INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(
        tensor.numel() * 4 for tensor in random_model("qwen3").state_dict().values()
    )
    assert torch.equal(theirs(tmp_path / "many"), theirs(tmp_path / "hf"))
    assert torch.equal(logits(tmp_path / "many"), logits(tmp_path / "hf"))


def test_a_model_without_its_head_or_with_strange_tensors_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    random_model("llama").save_pretrained(tmp_path / "hf")
    file = tmp_path / "hf" / "model.safetensors"
    whole = load_file(file)

    def refused(change: dict[str, Tensor | None], complaint: str) -> None:
        found = {**whole, **change}
        save_file({name: tensor for name, tensor in found.items() if tensor is not None}, file)
        with pytest.raises(CheckpointError, match=complaint):
            foreign.open_model(tmp_path / "hf")

    refused({"lm_head.weight": None}, "missing lm_head.weight, unknown nothing")
    refused({"model.layers.0.adapter": torch.ones(1)}, "missing nothing, unknown layers.0.adapter")
    refused({"norm.weight": torch.ones(64)}, "with and without 'model.' of one name")
    refused({"model.norm.weight": torch.ones(63)}, r"norm.weight has shape \(63,\), its configuration says \(64,\)")
    save_file({**whole, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}, file)
    assert len(foreign.open_model(tmp_path / "hf").tensors) == len(whole)


def test_what_is_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not there; expected a model folder or a \.gguf file"):
        foreign.open_model(tmp_path / "nothing")
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(UsageError, match=r"is no model; expected a folder or a \.gguf file"):
        foreign.open_model(tmp_path / "x.txt")
    random_model("qwen2").save_pretrained(tmp_path / "hf")
    (tmp_path / "g").mkdir()
    convert(tmp_path / "hf", tmp_path / "g" / "a.gguf", to="gguf")
    assert foreign.open_model(tmp_path / "g").tensors
    convert(tmp_path / "hf", tmp_path / "g" / "b.gguf", to="gguf")
    with pytest.raises(UsageError, match="holds 2 GGUF files; name one of them"):
        foreign.open_model(tmp_path / "g")
    folder.write(tmp_path / "ria", {"model_type": "ria"}, {"x": torch.ones(2, 64)})
    assert foreign.open_model(tmp_path / "ria").config == {"model_type": "ria"}
    with pytest.raises(CheckpointError, match="family 'ria'; only 'llama' models exist in other formats"):
        convert(tmp_path / "ria", tmp_path / "x.gguf", to="gguf")
    convert(tmp_path / "ria", tmp_path / "ria2")
    folder.verify(tmp_path / "ria2")

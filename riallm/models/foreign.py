"""Models of other programs under our names: Hugging Face folders and GGUF files of Llama, Qwen2 and Qwen3, in and out.

Our names are Hugging Face's without the leading "model.". A name map is a table; nothing is read until a tensor is
asked for. Letters: O rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from riallm.checkpoint import folder as folders
from riallm.checkpoint import huggingface
from riallm.checkpoint.folder import MANIFEST, Stored
from riallm.checkpoint.gguf import open_gguf
from riallm.checkpoint.tensors import Tensors, Weight, rows_of
from riallm.core.errors import CheckpointError, UsageError
from riallm.models import foreign_config, foreign_gguf, foreign_tokenizer
from riallm.models.llama import LlamaConfig

PREFIX = "model."
TOP = {
    "embed_tokens.weight": "token_embd.weight",
    "norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
IN_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""Our name of a part -> GGUF's."""
LEFT_OUT = ("rotary_emb.inv_freq", "attn_rot_embd", "rope_freqs.weight")
"""Tensors that are no weights: they follow from the configuration."""


def open_model(path: Path) -> Stored:
    """A model of ours, of Hugging Face's form, or a GGUF file, under our names and with our configuration; no tensor is
    read. Raises CheckpointError for a damaged or unknown one, UsageError where nothing is."""
    if path.is_file() and path.suffix == ".gguf":
        return from_gguf(path)
    if path.is_file():
        raise UsageError(f"{path} is no model; expected a folder or a .gguf file")
    if not path.is_dir():
        raise UsageError(f"{path} is not there; expected a model folder or a .gguf file")
    if (path / MANIFEST).exists():
        return folders.read(path)
    found = sorted(path.glob("*.gguf"))
    if not (path / "config.json").exists() and found:
        first = [file for file in found if "-of-" not in file.name or "-00001-of-" in file.name]
        if len(first) == 1:
            return from_gguf(first[0])
        raise UsageError(f"{path} holds {len(found)} GGUF files; name one of them")
    return from_hugging_face(path)


def shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Our name -> shape of every tensor, in the order of use."""
    width, inner = config.hidden_size, config.num_attention_heads * config.head_dim
    shared, middle = config.num_key_value_heads * config.head_dim, config.intermediate_size
    found: dict[str, tuple[int, ...]] = {"embed_tokens.weight": (config.vocab_size, width)}
    for number in range(config.num_hidden_layers):
        layer: dict[str, tuple[int, ...]] = {"input_layernorm.weight": (width,)}
        for name, rows in (("q", inner), ("k", shared), ("v", shared)):
            layer[f"self_attn.{name}_proj.weight"] = (rows, width)
            if config.attention_bias:
                layer[f"self_attn.{name}_proj.bias"] = (rows,)
        if config.qk_norm:
            layer |= {"self_attn.q_norm.weight": (config.head_dim,), "self_attn.k_norm.weight": (config.head_dim,)}
        layer["self_attn.o_proj.weight"] = (width, inner)
        if config.output_bias:
            layer["self_attn.o_proj.bias"] = (width,)
        layer["post_attention_layernorm.weight"] = (width,)
        layer |= {"mlp.gate_proj.weight": (middle, width), "mlp.up_proj.weight": (middle, width)}
        layer["mlp.down_proj.weight"] = (width, middle)
        found |= {f"layers.{number}.{name}": shape for name, shape in layer.items()}
    found["norm.weight"] = (width,)
    if not config.tie_word_embeddings:
        found["lm_head.weight"] = (config.vocab_size, width)
    return found


def fitted(tensors: Tensors, old_of: Mapping[str, str], config: LlamaConfig, what: str) -> dict[str, str]:
    """Of new -> old names those that the configuration asks for, in the order of use. Raises CheckpointError for names
    or shapes that do not fit; a head beside tied embeddings is left out."""
    wanted = shapes(config)
    missing = [name for name in wanted if name not in old_of]
    extra = sorted(set(old_of) - set(wanted) - ({"lm_head.weight"} if config.tie_word_embeddings else set()))
    if missing or extra:
        raise CheckpointError(
            f"{what} does not fit its configuration: missing {', '.join(missing[:3]) or 'nothing'}, "
            f"unknown {', '.join(extra[:3]) or 'nothing'}"
        )
    for name, shape in wanted.items():
        found = tensors.info(old_of[name]).shape
        if found != shape:
            raise CheckpointError(f"{what}: {old_of[name]} has shape {found}, its configuration says {shape}")
    return {name: old_of[name] for name in wanted}


def from_hugging_face(path: Path) -> Stored:
    """A folder of Hugging Face's form. Raises CheckpointError for a damaged one, or what cannot be computed here."""
    stored = huggingface.read(path)
    config = foreign_config.from_hugging_face(stored.config, where=f"{path}/config.json")
    names = {name.removeprefix(PREFIX): name for name in stored.tensors if not name.endswith(LEFT_OUT)}
    if len(names) < sum(not name.endswith(LEFT_OUT) for name in stored.tensors):
        raise CheckpointError(f"{path} has tensors with and without '{PREFIX}' of one name; download it again")
    names = fitted(stored.tensors, names, config, str(path))
    return Stored(
        config=foreign_config.ours(config),
        tensors=stored.tensors.renamed(names),
        identity=stored.identity,
        files=stored.files,
        places={name: stored.places[old] for name, old in names.items()},
    )


def from_gguf(path: Path) -> Stored:
    """A GGUF file, the vocabulary as `foreign_tokenizer` writes it. Raises CheckpointError for a damaged one, or what
    cannot be computed here."""
    model = open_gguf(path)
    config = foreign_gguf.config_of(model, where=str(path))
    family = foreign_config.FAMILIES[model.architecture]
    ours_of = {theirs: mine for mine, theirs in gguf_names(shapes(config)).items()}
    names = {ours_of.get(name, name): name for name in model.tensors if not name.endswith(LEFT_OUT)}
    names = fitted(model.tensors, names, config, str(path))

    def change(name: str, weight: Weight) -> Weight:
        index = permutation(name, config) if family.permuted else None
        return weight if index is None else rows_of(weight, index.argsort())

    files = {} if model.vocabulary is None else foreign_tokenizer.files_of(model.vocabulary)
    return Stored(
        config=foreign_config.ours(config),
        tensors=model.tensors.renamed(names, change),
        identity=model.identity,
        files=files,
    )


def gguf_names(names: Mapping[str, Any]) -> dict[str, str]:
    """Our names -> GGUF's."""
    found = {}
    for name in names:
        if name in TOP:
            found[name] = TOP[name]
            continue
        _, number, rest = name.split(".", 2)
        part, _, ending = rest.rpartition(".")
        found[name] = f"blk.{number}.{IN_LAYER[part]}.{ending}"
    return found


def permutation(name: str, config: LlamaConfig) -> Tensor | None:
    """(O,) which of our rows stands at each place in GGUF's "llama": there the halves of a head are interleaved,
    because llama.cpp turns neighbours. For queries and keys, weights and biases; None for other tensors."""
    if ".self_attn.q_proj." in name:
        heads = config.num_attention_heads
    elif ".self_attn.k_proj." in name:
        heads = config.num_key_value_heads
    else:
        return None
    rows = torch.arange(heads * config.head_dim)
    return rows.view(heads, 2, config.head_dim // 2).transpose(1, 2).reshape(-1)


def config_of(stored: Stored) -> LlamaConfig:
    """The configuration of an opened model. Raises CheckpointError for another family, which other programs lack."""
    config = dict(stored.config)
    family = config.pop("model_type", None)
    if family != "llama":
        raise CheckpointError(f"the model is of the family {family!r}; only 'llama' models exist in other formats")
    return foreign_config.made_of(config, "config.json")

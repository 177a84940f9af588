"""A model in memory, ready to be run: weights as they are kept, packed ones packed, everything else in one type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from riallm.checkpoint.folder import Stored
from riallm.checkpoint.tensors import Info, KindOf, Tensors, packed_as, widened
from riallm.core.config import from_json, to_json
from riallm.core.errors import CheckpointError, UsageError
from riallm.models.base import Costs
from riallm.models.decoder import Decoder
from riallm.models.foreign import open_model
from riallm.models.llama import LlamaConfig
from riallm.models.ria import RIAConfig
from riallm.models.rxt import RxTConfig
from riallm.models.zoo import empty, entry
from riallm.nn.linear import Embedding, Linear, PackedEmbedding, PackedLinear
from riallm.quant.packed import Kind, Packed
from riallm.quant.prepared import prepare

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
"""Of activations, keys and values. float16 is slow on processors and overflows; it is not offered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """identity: a hash of the weights and how they are kept. costs: of the model without packing. weight_bytes: of all
    tensors in memory. files: a tokenizer and what else lay beside the weights."""

    model: Decoder
    identity: str
    costs: Costs
    weight_bytes: int
    files: Mapping[str, bytes]


def load(path: Path, *, kind: Kind | None = None, dtype: str = "bfloat16") -> Resident:
    """A model from a folder of ours or Hugging Face's, or a GGUF file. kind: what its matrices are packed as when they
    are not packed already, embeddings and head in 8 bits where it has 4 (None: as they are). Raises CheckpointError for
    one that is damaged or of a family that is not known, UsageError for a type that is not offered."""
    if dtype not in DTYPES:
        raise UsageError(f"dtype is {dtype!r}; there are {', '.join(DTYPES)}")
    stored = open_model(path)
    return made_of(stored, path.name, kind=kind, dtype=DTYPES[dtype])


def random(name: str, *, kind: Kind | None = None, dtype: str = "bfloat16", seed: int = 0) -> Resident:
    """A shape by its name in the zoo, with weights drawn at random: for measuring speed and memory."""
    config = entry(name).config
    if isinstance(config, RxTConfig):
        raise UsageError(
            f"{name} keeps its conversations in a memory, and no weights are made up for it; `riallm bench turns` "
            "measures its shape"
        )
    return random_of(config, name, kind=kind, dtype=dtype, seed=seed)


def random_of(
    config: RIAConfig | LlamaConfig, name: str, *, kind: Kind | None, dtype: str = "bfloat16", seed: int = 0
) -> Resident:
    """Weights drawn at random, one tensor at a time; `name` is for messages."""
    if dtype not in DTYPES:
        raise UsageError(f"dtype is {dtype!r}; there are {', '.join(DTYPES)}")
    with torch.device("meta"):
        shapes = {full: tuple(p.shape) for full, p in empty(config, DTYPES[dtype]).named_parameters()}
    draw = torch.Generator().manual_seed(seed)

    def drawn(full: str) -> Tensor:
        shape = shapes[full]
        if len(shape) < 2:
            return torch.zeros(shape) if full.endswith("bias") else torch.ones(shape)
        return torch.empty(shape, dtype=torch.bfloat16).normal_(std=shape[-1] ** -0.5, generator=draw)

    infos = {
        full: Info(kept="bfloat16" if len(shape) >= 2 else "float32", shape=shape) for full, shape in shapes.items()
    }
    family = "ria" if isinstance(config, RIAConfig) else "llama"
    stored = Stored(
        config={"model_type": family, **to_json(config)},
        tensors=Tensors(infos, drawn),
        identity=f"random {name} {seed}",
    )
    return made_of(stored, name, kind=kind, dtype=DTYPES[dtype])


def made_of(stored: Stored, name: str, *, kind: Kind | None, dtype: torch.dtype) -> Resident:
    """See `load`; `name` is for messages."""
    with torch.device("meta"):
        model = _empty(stored.config, name, dtype)
    costs = model.costs()
    model.restart()
    own = dict(model.named_parameters())
    missing, extra = sorted(set(own) - set(stored.tensors)), sorted(set(stored.tensors) - set(own))
    if missing or extra:
        raise CheckpointError(
            f"{name} does not fit its configuration: missing {', '.join(missing[:3]) or 'nothing'}, "
            f"unknown {', '.join(extra[:3]) or 'nothing'}"
        )
    tensors = stored.tensors if kind is None else stored.tensors.kept_as(_packing(kind))
    weight_bytes = 0
    for full, parameter in own.items():
        info = tensors.info(full)
        if tuple(parameter.shape) != info.shape:
            raise CheckpointError(f"{name}: {full} has shape {info.shape}, its configuration says {parameter.shape}")
        weight_bytes += _put(model, full, tensors[full], dtype)
    identity = f"{stored.identity} {kind} {dtype}"
    return Resident(
        model=model.eval(), identity=identity, costs=costs, weight_bytes=weight_bytes, files=dict(stored.files)
    )


def _empty(config: Mapping[str, Any], name: str, dtype: torch.dtype) -> Decoder:
    told = dict(config)
    family = told.pop("model_type", None)
    where = f"{name}/config.json"
    if family == "ria":
        return empty(from_json(RIAConfig, told, where=where), dtype)
    if family == "llama":
        return empty(from_json(LlamaConfig, told, where=where), dtype)
    if family == "rxt":
        raise UsageError(
            f"{name} keeps its conversations in a memory; `riallm chat` and `riallm serve` open it, and from Python "
            "riallm.rxt"
        )
    raise CheckpointError(f"{where} has model_type {family!r}; there are 'ria' and 'llama'")


def _packing(kind: Kind) -> KindOf:
    """Matrices in a kind, but what is packed already stays; tables of tokens in 8 bits, since each row is one token."""
    matrices, tables = packed_as(kind), packed_as("int8")

    def kind_of(name: str, info: Info) -> str:
        if info.kept not in ("float32", "bfloat16", "float16"):
            return info.kept
        return (tables if name.startswith(("embed_tokens", "lm_head")) else matrices)(name, info)

    return kind_of


def _put(model: Decoder, full: str, weight: Tensor | Packed, dtype: torch.dtype) -> int:
    """Give a parameter its weight, or its module a packed one; bytes that it takes."""
    place, leaf = full.rsplit(".", 1) if "." in full else ("", full)
    owner = model.get_submodule(place)
    if isinstance(weight, Packed) and leaf == "weight" and isinstance(owner, (Linear, Embedding)):
        prepared = prepare(weight)
        packed = PackedEmbedding(prepared) if isinstance(owner, Embedding) else PackedLinear(prepared, owner.bias)
        above, _, last = place.rpartition(".")
        setattr(model.get_submodule(above), last, packed)
        return prepared.num_bytes
    # Vectors are gains, biases and the like: small, and of more weight than a number of a matrix.
    plain = widened(weight, dtype if len(weight.shape) >= 2 else torch.float32)
    setattr(owner, leaf, nn.Parameter(plain, requires_grad=False))
    return plain.nbytes

"""A model from its folder, whichever family it is of."""

from __future__ import annotations

from pathlib import Path

import torch

from riallm.checkpoint import folder as folders
from riallm.checkpoint.tensors import Info, packed_as
from riallm.core.config import from_json, to_json
from riallm.core.errors import CheckpointError
from riallm.models.ria import RIA, RIAConfig
from riallm.quant.blocks import Bits
from riallm.quant.packed import BITS

TOKENIZER = "tokenizer.json"


def save_ria(model: RIA, folder: Path, *, bits: Bits | None, files: dict[str, bytes] | None = None) -> None:
    """Write a model; matrices in blocks of `bits`, embeddings in 8 where matrices have fewer."""
    config = {"model_type": "ria", **to_json(model.config)}
    tensors = {name: parameter.detach() for name, parameter in model.named_parameters()}

    matrices = packed_as(None if bits is None else BITS[bits], plain="bfloat16")
    embeddings = packed_as(None if bits is None else "int8", plain="bfloat16")

    def kind_of(name: str, info: Info) -> str:
        return (embeddings if name.startswith("embed_tokens") else matrices)(name, info)

    folders.write(folder, config, tensors, kind_of=kind_of, files=files)


def load_ria(folder: Path, *, dtype: torch.dtype = torch.float32) -> RIA:
    """Read a model. Raises CheckpointError for a damaged folder, another family, or weights that do not fit."""
    folders.verify(folder)
    stored = folders.read(folder)
    config = dict(stored.config)
    family = config.pop("model_type", None)
    if family != "ria":
        raise CheckpointError(f"{folder}/config.json has model_type {family!r}; expected 'ria'")
    model = RIA(from_json(RIAConfig, config, where=f"{folder.name}/config.json"), dtype=dtype)
    folders.fill(model, stored, what=str(folder))
    return model.eval()

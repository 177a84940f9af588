"""A model from its folder, whichever family it is of."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from riallm.checkpoint import folder as folders
from riallm.checkpoint.folder import Stored
from riallm.checkpoint.reading import read_json
from riallm.checkpoint.tensors import Info, packed_as
from riallm.core.config import from_json, to_json
from riallm.core.errors import CheckpointError
from riallm.models.ria import RIA, RIAConfig
from riallm.models.rxt import RxT, RxTConfig
from riallm.quant.blocks import Bits
from riallm.quant.packed import BITS

TOKENIZER = "tokenizer.json"

TAKEN_BY = {"ria": "riallm complete, fix, chat, serve and eval", "rxt": "riallm chat, serve and eval memory"}
"""The commands for a family of ours."""


def save_ria(model: RIA, folder: Path, *, bits: Bits | None, files: dict[str, bytes] | None = None) -> None:
    """Write a model; matrices in blocks of `bits`, embeddings in 8 where matrices have fewer."""
    _save("ria", model, folder, bits=bits, plain="bfloat16", files=files)


def load_ria(folder: Path, *, dtype: torch.dtype = torch.float32) -> RIA:
    """Read a model. Raises CheckpointError for a damaged folder, another family, or weights that do not fit."""
    stored, config = _opened(folder, "ria")
    model = RIA(from_json(RIAConfig, config, where=f"{folder.name}/config.json"), dtype=dtype)
    folders.fill(model, stored, what=str(folder))
    return model.eval()


def keeps_memory(place: Path) -> bool:
    """Whether a folder of ours holds a model whose conversations are a memory of fixed size."""
    path = place / folders.CONFIG
    return path.is_file() and read_json(path).get("model_type") == "rxt"


def save_rxt(
    model: RxT,
    folder: Path,
    *,
    bits: Bits | None,
    plain: Literal["bfloat16", "float32"] = "bfloat16",
    files: dict[str, bytes] | None = None,
) -> None:
    """As `save_ria`. plain: how matrices are kept that are not in blocks; the stacked ones of experts and the slots
    that a conversation begins with never are."""
    _save("rxt", model, folder, bits=bits, plain=plain, files=files)


def load_rxt(folder: Path, *, dtype: torch.dtype = torch.float32) -> RxT:
    """As `load_ria`; the model's `fingerprint` is the hash of the folder's manifest, for states to name."""
    stored, config = _opened(folder, "rxt")
    model = RxT(from_json(RxTConfig, config, where=f"{folder.name}/config.json"), dtype=dtype)
    folders.fill(model, stored, what=str(folder))
    model.fingerprint = stored.identity
    return model.eval()


def _save(
    family: str, model: RIA | RxT, folder: Path, *, bits: Bits | None, plain: str, files: dict[str, bytes] | None
) -> None:
    config = {"model_type": family, **to_json(model.config)}
    tensors = {name: parameter.detach() for name, parameter in model.named_parameters()}

    matrices = packed_as(None if bits is None else BITS[bits], plain=plain)
    embeddings = packed_as(None if bits is None else "int8", plain=plain)

    def kind_of(name: str, info: Info) -> str:
        return (embeddings if name.startswith("embed_tokens") else matrices)(name, info)

    folders.write(folder, config, tensors, kind_of=kind_of, files=files)


def _opened(folder: Path, family: str) -> tuple[Stored, dict[str, Any]]:
    """The folder, every byte checked, and its configuration without `model_type`, which is `family`."""
    folders.verify(folder)
    stored = folders.read(folder)
    config = dict(stored.config)
    found = config.pop("model_type", None)
    if found != family:
        told = f"; such a model is for {TAKEN_BY[found]}" if found in TAKEN_BY else ""
        raise CheckpointError(f"{folder}/config.json has model_type {found!r}; expected {family!r}{told}")
    return stored, config

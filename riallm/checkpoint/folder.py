"""A model in a folder: configuration, weights in few bits or whole, and a manifest that hashes every file.

    config.json           the family's own names, `model_type` among them
    weights.safetensors   NAME for whole tensors; NAME.codes and NAME.scales for those in blocks
    manifest.json         format version, files with size and sha256, and how each tensor is kept

Other files (a tokenizer, a card) may lie beside them and are hashed too. Nothing is pickled.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from riallm.core.errors import CheckpointError
from riallm.core.files import atomic_write, sha256
from riallm.quant.blocks import Bits
from riallm.quant.packed import BITS, Packed, dequantise, packable, quantise

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """config: as in config.json. tensors: float32, or bfloat16 where they were kept whole as that. identity: sha256 of
    the manifest, which names every file's hash."""

    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    identity: str


def write(
    folder: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    bits: Bits | None = None,
    files: Mapping[str, bytes] | None = None,
    bits_of: Callable[[str], Bits | None] | None = None,
) -> None:
    """Write a model; the folder is whole or absent. bits: of matrices (None: bfloat16); bits_of: another choice by
    name, for instance 8 for embeddings. Raises CheckpointError when the folder is there, or the disk is full."""
    if folder.exists():
        raise CheckpointError(f"{folder} is there already; remove it or name another")
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
            building = Path(scratch) / "model"
            building.mkdir()
            kept, told = _packed(tensors, bits, bits_of)
            save_file(kept, building / "weights.safetensors")
            (building / "weights.safetensors").chmod(0o644)  # the library writes for its owner alone
            (building / "config.json").write_text(json.dumps(dict(config), indent=1, sort_keys=True) + "\n")
            for name, data in (files or {}).items():
                (building / name).write_bytes(data)
            hashes = {
                path.name: {"bytes": path.stat().st_size, "sha256": sha256(path.read_bytes())}
                for path in sorted(building.iterdir())
            }
            manifest = {"format": FORMAT, "files": hashes, "tensors": told}
            (building / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
            shutil.move(building, folder)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder} could not be written: {error}. Nothing of it was left.") from None


def add(folder: Path, files: Mapping[str, bytes]) -> None:
    """Put further files into a model, or others in the place of those with their names; weights and configuration stay.

    Raises CheckpointError for a name that belongs to the model itself, or a folder that is damaged.
    """
    manifest = verify(folder)
    own = sorted(set(files) & {"config.json", "weights.safetensors", "manifest.json"})
    if own:
        raise CheckpointError(f"{folder}/{own[0]} is part of the model and is not replaced")
    for name, data in files.items():
        (folder / name).write_bytes(data)
        manifest["files"][name] = {"bytes": len(data), "sha256": sha256(data)}
    atomic_write(folder / "manifest.json", (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode())


def _packed(
    tensors: Mapping[str, Tensor], bits: Bits | None, bits_of: Callable[[str], Bits | None] | None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    kept: dict[str, Tensor] = {}
    told: dict[str, Any] = {}
    for name, tensor in tensors.items():
        own = bits_of(name) if bits_of is not None else bits
        if own is not None and packable(tensor, BITS[own]):
            packed = quantise(tensor, BITS[own])
            assert packed.scales is not None
            kept[f"{name}.codes"], kept[f"{name}.scales"] = packed.codes.contiguous(), packed.scales.contiguous()
            told[name] = {"kept": f"blocks-{own}", "shape": list(tensor.shape)}
        else:
            whole = tensor.bfloat16() if tensor.ndim >= 2 else tensor.float()
            kept[name] = whole.contiguous()
            told[name] = {"kept": str(whole.dtype).removeprefix("torch."), "shape": list(tensor.shape)}
    return kept, told


def verify(folder: Path) -> dict[str, Any]:
    """The manifest, every file checked against it. Raises CheckpointError that names what is wrong."""
    path = folder / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        files = manifest["files"]
        version = manifest["format"]
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} holds no model of ours: {path.name}: {error!r}") from None
    if version != FORMAT:
        raise CheckpointError(f"{path} has format {version}; this version reads format {FORMAT}")
    for name, told in files.items():
        file = folder / name
        if not file.exists():
            raise CheckpointError(f"{file} is missing; {path.name} lists it with {told['bytes']} bytes")
        size = file.stat().st_size
        if size != told["bytes"]:
            raise CheckpointError(
                f"{file} has {size} bytes, {path.name} says {told['bytes']}: it was cut off or replaced"
            )
        found = sha256(file.read_bytes())
        if found != told["sha256"]:
            raise CheckpointError(f"{file} is damaged: its sha256 is {found}, {path.name} says {told['sha256']}")
    return manifest


def read(folder: Path) -> Stored:
    """A model that `write` wrote, checked. Raises CheckpointError for one that is damaged or foreign."""
    manifest = verify(folder)
    config = json.loads((folder / "config.json").read_text())
    kept = load_file(folder / "weights.safetensors")
    tensors: dict[str, Tensor] = {}
    for name, told in manifest["tensors"].items():
        how = told["kept"]
        try:
            if how.startswith("blocks-"):
                bits: Bits = 4 if how == "blocks-4" else 8
                codes, scales = kept[f"{name}.codes"], kept[f"{name}.scales"]
                tensor = dequantise(Packed(kind=BITS[bits], codes=codes, scales=scales))
            else:
                tensor = kept[name]
        except KeyError as error:
            raise CheckpointError(
                f"{folder}/weights.safetensors has no tensor {error}; manifest.json lists it"
            ) from None
        if list(tensor.shape) != told["shape"]:
            raise CheckpointError(f"{name} has shape {tuple(tensor.shape)}, the manifest says {tuple(told['shape'])}")
        tensors[name] = tensor
    return Stored(config=config, tensors=tensors, identity=sha256((folder / "manifest.json").read_bytes()))


def fill(module: torch.nn.Module, stored: Stored, *, what: str) -> None:
    """Copy the tensors into a module's parameters. Raises CheckpointError for names or shapes that do not fit."""
    own = dict(module.named_parameters())
    missing, extra = sorted(set(own) - set(stored.tensors)), sorted(set(stored.tensors) - set(own))
    if missing or extra:
        raise CheckpointError(
            f"{what} does not fit its configuration: missing {', '.join(missing[:3]) or 'nothing'}, "
            f"unknown {', '.join(extra[:3]) or 'nothing'}"
        )
    with torch.no_grad():
        for name, parameter in own.items():
            if parameter.shape != stored.tensors[name].shape:
                raise CheckpointError(
                    f"{what}: {name} has shape {tuple(stored.tensors[name].shape)}, "
                    f"its configuration says {tuple(parameter.shape)}"
                )
            parameter.copy_(stored.tensors[name])

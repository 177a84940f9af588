"""A run on the disk: tensors in safetensors, numbers in JSON, each save whole or absent, the last two kept.

Nothing is pickled. A save is a folder `step-N` that got its name only when all of it was on the disk.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from riallm.core.errors import CheckpointError
from riallm.core.files import sha256, sync

KEPT = 2
_NAME = re.compile(r"step-(\d{8})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """tensors: by name; numbers: JSON values (step, seconds, optimiser steps)."""

    tensors: Mapping[str, Tensor]
    numbers: Mapping[str, Any]


def save(folder: Path, step: int, saved: Saved) -> Path:
    """Write one save and drop the oldest; on any failure, a full disk included, the earlier saves stay as they are."""
    building = folder / f".step-{step:08d}"
    shutil.rmtree(building, ignore_errors=True)
    try:
        building.mkdir(parents=True)
        weights = building / "state.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in saved.tensors.items()}, weights)
        numbers = {**saved.numbers, "step": step, "sha256": sha256(weights.read_bytes())}
        (building / "state.json").write_text(json.dumps(numbers, indent=1, sort_keys=True))
        for path in (*building.iterdir(), building):
            sync(path)
        place = folder / f"step-{step:08d}"
        shutil.rmtree(place, ignore_errors=True)
        building.rename(place)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(building, ignore_errors=True)
        raise CheckpointError(
            f"step {step} could not be saved in {folder}: {error}. Make room and run the same command again; "
            f"it goes on from {latest(folder) or 'the beginning'}."
        ) from None
    for old in steps(folder)[:-KEPT]:
        shutil.rmtree(folder / f"step-{old:08d}", ignore_errors=True)
    return place


def steps(folder: Path) -> list[int]:
    """Steps that are saved in the folder, in order."""
    names = (_NAME.fullmatch(path.name) for path in folder.iterdir()) if folder.is_dir() else ()
    return sorted(int(found[1]) for found in names if found)


def latest(folder: Path) -> Path | None:
    """The newest save, or None."""
    found = steps(folder)
    return folder / f"step-{found[-1]:08d}" if found else None


def read(place: Path, *, device: torch.device | str = "cpu") -> Saved:
    """A save, its hash checked. Raises CheckpointError that names the file when it is damaged."""
    weights, numbers = place / "state.safetensors", place / "state.json"
    try:
        told = json.loads(numbers.read_text())
        found = sha256(weights.read_bytes())
        if found != told["sha256"]:
            raise CheckpointError(
                f"{weights} is damaged: its sha256 is {found}, {numbers.name} says {told['sha256']}. "
                f"Remove {place} to go on from the save before it."
            )
        return Saved(tensors=load_file(weights, device=str(device)), numbers=told)
    except (OSError, json.JSONDecodeError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"{place} cannot be read: {error}. Remove it to go on from the save before it.") from None

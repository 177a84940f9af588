"""A model in a folder as Hugging Face's programs have them: read lazily with every claim checked, and written.

    config.json                                       the architecture's own names
    model.safetensors                                 or, in several files,
    model-00001-of-00002.safetensors ...              with model.safetensors.index.json, which says what lies where
    tokenizer.json, generation_config.json, ...       carried along as bytes

Weights that are pickled (`.bin`, `.pt`) are refused: reading them executes what they hold.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from riallm.checkpoint import building
from riallm.checkpoint.building import FilePlan, Hear, Work
from riallm.checkpoint.carried import CARRIED, PICKLED, SUMS
from riallm.checkpoint.folder import CONFIG, Chunks, Stored, lazily
from riallm.checkpoint.header import Entry, read_header
from riallm.checkpoint.layout import Place, planned
from riallm.checkpoint.reading import Seen, look, read_json
from riallm.checkpoint.tensors import PLAIN, Info, Tensors
from riallm.core.errors import CheckpointError
from riallm.core.files import canonical_json, sha256

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000
NAMES = {dtype: name for name, dtype in PLAIN.items()}


def read(folder: Path) -> Stored:
    """Open a model; no tensor is read. The identity changes with names, sizes and times of the files. Raises
    CheckpointError for files that are damaged, missing, pickled or quantised by another program."""
    if not (folder / CONFIG).exists():
        raise CheckpointError(f"{folder} has no {CONFIG}; expected a model folder as Hugging Face's programs write it")
    config = read_json(folder / CONFIG)
    seen, headers = _opened(folder)
    places: dict[str, Place] = {}
    for file, header in headers.items():
        for name, entry in header.items():
            if name in places:
                raise CheckpointError(f"{name} lies both in {places[name].file} and in {file} of {folder}")
            places[name] = Place(file=file, info=_info(folder / file, name, entry), parts={"": entry})
    files = {name: (folder / name).read_bytes() for name in CARRIED if (folder / name).is_file()}
    told = [config, {name: [one.num_bytes, one.mtime_ns, list(headers[name])] for name, one in seen.items()}]
    return Stored(
        config=config,
        tensors=lazily(places, seen),
        identity=sha256(canonical_json(told).encode()),
        files=files,
        places=places,
    )


def _opened(folder: Path) -> tuple[dict[str, Seen], dict[str, dict[str, Entry]]]:
    """Files with tensors and their headers, checked against the index where there is one."""
    if (folder / INDEX).exists():
        where = read_json(folder / INDEX).get("weight_map")
        if not isinstance(where, dict) or not all(isinstance(file, str) for file in where.values()):
            raise CheckpointError(f"{folder / INDEX} has no weight_map of names to files; download it again")
        names = sorted(set(where.values()))
    elif (folder / SINGLE).exists():
        where, names = {}, [SINGLE]
    else:
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
        if pickled:
            raise CheckpointError(
                f"{folder} has its weights in {pickled[0]}, a pickle, which runs code when it is read and is never "
                "loaded; get the model as safetensors"
            )
        raise CheckpointError(f"{folder} has neither {SINGLE} nor {INDEX}; download it again")
    strange = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
    if strange:
        raise CheckpointError(f"{folder / INDEX} names {strange[0]!r}; expected safetensors files of the same folder")
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise CheckpointError(f"{folder} lacks {', '.join(missing)}, which {INDEX} names; download the rest")
    seen = {name: look(folder / name) for name in names}
    headers = {name: read_header(one) for name, one in seen.items()}
    for name, file in where.items():
        if name not in headers[file]:
            raise CheckpointError(f"{folder / file} has no tensor {name}; {INDEX} says that it lies there")
    return seen, headers


def _info(path: Path, name: str, entry: Entry) -> Info:
    if entry.dtype not in NAMES:
        kind = str(entry.dtype).removeprefix("torch.")
        raise CheckpointError(
            f"{path}: {name} has type {kind}; expected one of {', '.join(PLAIN)}. Models that other programs have "
            "quantised are not read; get the unquantised one, or a GGUF file"
        )
    return Info(kept=NAMES[entry.dtype], shape=entry.shape)


def write(
    folder: Path,
    config: Mapping[str, Any],
    tensors: Tensors,
    *,
    files: Mapping[str, bytes] | None = None,
    shard_bytes: int = SHARD_BYTES,
    resume: str | None = None,
    hear: Hear | None = None,
) -> None:
    """Write a model; the folder is whole or absent. tensors: plain ones, by their full names. shard_bytes: of a file's
    data, unless one tensor alone has more. resume: as in `folder.write`. Raises CheckpointError for packed tensors, a
    folder that is there, or a full disk."""
    packed = [name for name in tensors if tensors.info(name).kept not in PLAIN]
    if packed:
        raise CheckpointError(f"{packed[0]} is packed as {tensors.info(packed[0]).kept}; this format has plain ones")
    groups = _groups(tensors, shard_bytes)
    plans: dict[str, FilePlan] = {}
    where: dict[str, str] = {}
    for at, names in enumerate(groups, start=1):
        file = SINGLE if len(groups) == 1 else f"model-{at:05d}-of-{len(groups):05d}.safetensors"
        plans[file], _ = planned(file, {name: tensors.info(name) for name in names}, {"format": "pt"})
        where |= dict.fromkeys(names, file)
    small = {CONFIG: _text(config), **{name: data for name, data in (files or {}).items() if name != CONFIG}}
    if len(groups) > 1:
        total = sum(tensors.info(name).num_bytes for name in tensors)
        small[INDEX] = _text({"metadata": {"total_size": total}, "weight_map": where})

    def closing(done: Mapping[str, dict[str, Any]]) -> dict[str, bytes]:
        return {SUMS: building.sums_of(done, small), **small}

    told = [resume, {name: [tensors.info(name).kept, where[name]] for name in tensors}, sorted(small)]
    work = Work(
        files=plans,
        chunks=Chunks(tensors),
        closing=closing,
        identity=sha256(canonical_json(told).encode() + small[CONFIG]),
    )
    building.build(folder, work, resumable=resume is not None, hear=hear)


def _groups(tensors: Tensors, shard_bytes: int) -> list[list[str]]:
    """Names file by file, in order."""
    groups: list[list[str]] = [[]]
    size = 0
    for name in tensors:
        num_bytes = tensors.info(name).num_bytes
        if groups[-1] and size + num_bytes > shard_bytes:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += num_bytes
    return groups


def _text(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(dict(value), indent=2, sort_keys=True) + "\n").encode()


def torch_name(dtype: torch.dtype) -> str:
    """As config.json writes it."""
    return NAMES[dtype]

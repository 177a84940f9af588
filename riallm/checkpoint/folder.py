"""A model in a folder of ours: configuration, weights file by file, and a manifest that hashes every file.

    config.json           the family's own names, `model_type` among them
    *.safetensors         as `layout` splits them; NAME for a plain tensor, NAME.codes and NAME.scales for a packed one
    manifest.json         format version, files with size and sha256, and how and where each tensor is kept

Other files (a tokenizer, a card) may lie beside them and are hashed too. Nothing is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from riallm.checkpoint import building
from riallm.checkpoint.building import Hear, Work
from riallm.checkpoint.header import Entry, read_header
from riallm.checkpoint.layout import Place, split
from riallm.checkpoint.reading import Seen, look, read_json
from riallm.checkpoint.reading import read as read_bytes
from riallm.checkpoint.tensors import (
    Info,
    KindOf,
    Tensors,
    Weight,
    as_bytes,
    checked,
    from_bytes,
    from_parts,
    in_memory,
    parts_of,
    widened,
)
from riallm.core.errors import CheckpointError
from riallm.core.files import atomic_write, canonical_json, sha256

FORMAT = 2
MANIFEST, CONFIG = "manifest.json", "config.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A model that was opened; no tensor has been read. config: as in config.json. files: the others, a tokenizer for
    instance. identity: a hash that changes with the model. places: where each tensor lies as it is, for who reads
    by itself; empty where tensors are changed on the way."""

    config: Mapping[str, Any]
    tensors: Tensors
    identity: str
    files: Mapping[str, bytes] = field(default_factory=dict)
    places: Mapping[str, Place] = field(default_factory=dict)


def write(
    folder: Path,
    config: Mapping[str, Any],
    tensors: Tensors | Mapping[str, Weight],
    *,
    kind_of: KindOf | None = None,
    files: Mapping[str, bytes] | None = None,
    resume: str | None = None,
    hear: Hear | None = None,
) -> None:
    """Write a model; the folder is whole or absent, and at most two tensors are in memory at a time.

    kind_of: how each tensor is kept (None: as it is). resume: a word for the source; what an earlier, interrupted try
    with the same word, configuration and ways of keeping has finished is not done again. None keeps nothing of a try
    that fails. Raises CheckpointError when the folder is there, or the disk is full.
    """
    source = tensors if isinstance(tensors, Tensors) else in_memory(tensors)
    kept = source if kind_of is None else source.kept_as(kind_of)
    plans, places = split(kept)
    small = {CONFIG: text_of(config), **(files or {})}
    taken = sorted(set(files or {}) & {CONFIG, MANIFEST, *plans})
    if taken:
        raise CheckpointError(f"{taken[0]} is written by the model itself; give that file another name")
    told = {name: told_of(place) for name, place in places.items()}

    def closing(done: Mapping[str, dict[str, Any]]) -> dict[str, bytes]:
        hashes = {name: {"bytes": len(data), "sha256": sha256(data)} for name, data in small.items()}
        manifest = {"format": FORMAT, "files": {**done, **hashes}, "tensors": told}
        return {**small, MANIFEST: text_of(manifest)}

    identity = sha256(canonical_json([resume, told, {name: sha256(data) for name, data in small.items()}]).encode())
    work = Work(files=plans, chunks=Chunks(kept), closing=closing, identity=identity)
    building.build(folder, work, resumable=resume is not None, hear=hear)


class Chunks:
    """The bytes of the parts of tensors; the last tensor is kept for its next part, and no other."""

    def __init__(self, tensors: Tensors) -> None:
        """tensors: all that will be asked for, by NAME, NAME.codes or NAME.scales."""
        self._tensors = tensors
        self._name_of = {f"{name}{ending}": (name, ending) for name in tensors for ending in tensors.info(name).parts}
        self._last: tuple[str, Weight] | None = None

    def __call__(self, part: str) -> Iterator[memoryview]:
        """One piece."""
        name, ending = self._name_of[part]
        if self._last is None or self._last[0] != name:
            self._last = None
            self._last = (name, self._tensors[name])
        yield as_bytes(parts_of(self._last[1])[ending])


def text_of(value: Mapping[str, Any]) -> bytes:
    """As JSON files of ours are written."""
    return (json.dumps(dict(value), indent=1, sort_keys=True) + "\n").encode()


def told_of(place: Place) -> dict[str, Any]:
    """A tensor in the manifest; offsets are counted from the beginning of the file."""
    parts = {ending.removeprefix(".") or "plain": [e.offset, e.num_bytes] for ending, e in place.parts.items()}
    return {"file": place.file, "kept": place.info.kept, "shape": list(place.info.shape), "parts": parts}


def add(folder: Path, files: Mapping[str, bytes]) -> None:
    """Put further files into a model, or others in the place of those with their names; weights and configuration stay.

    Raises CheckpointError for a name that belongs to the model itself, or a folder that is damaged.
    """
    verify(folder)
    manifest = manifest_of(folder)
    own = sorted(set(files) & {CONFIG, MANIFEST, *tensor_files(manifest)})
    if own:
        raise CheckpointError(f"{folder}/{own[0]} is part of the model and is not replaced")
    for name, data in files.items():
        atomic_write(folder / name, data)
        manifest["files"][name] = {"bytes": len(data), "sha256": sha256(data)}
    atomic_write(folder / MANIFEST, text_of(manifest))


def manifest_of(folder: Path) -> dict[str, Any]:
    """The manifest, its form and every file's size checked. Raises CheckpointError that names what is wrong."""
    path = folder / MANIFEST
    if not path.exists():
        raise CheckpointError(f"{folder} holds no model of ours: it has no {MANIFEST}")
    manifest = read_json(path)
    version = manifest.get("format")
    if version != FORMAT:
        raise CheckpointError(
            f"{path} has format {version}; this version reads format {FORMAT}. Convert the model again from its source"
        )
    try:
        sizes = {str(name): int(told["bytes"]) for name, told in manifest["files"].items()}
        hashes = [told["sha256"] for told in manifest["files"].values()]
        lies = {told["file"] for told in manifest["tensors"].values()} - set(sizes)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{folder} holds no model of ours: {MANIFEST}: {error!r}") from None
    strange = [name for name in sizes if Path(name).name != name or name in (".", "..", MANIFEST)]
    if strange or not all(isinstance(digest, str) for digest in hashes) or lies or CONFIG not in sizes:
        raise CheckpointError(
            f"{path} lists files that cannot be: {', '.join([*strange, *sorted(lies)]) or f'no {CONFIG}, or no hash'}"
        )
    for name, num_bytes in sizes.items():
        file = folder / name
        if not file.exists():
            raise CheckpointError(f"{file} is missing; {MANIFEST} lists it with {num_bytes} bytes")
        size = file.stat().st_size
        if size != num_bytes:
            raise CheckpointError(f"{file} has {size} bytes, {MANIFEST} says {num_bytes}: it was cut off or replaced")
    return manifest


def tensor_files(manifest: Mapping[str, Any]) -> set[str]:
    """Names of the files that hold tensors."""
    return {told["file"] for told in manifest["tensors"].values()}


def verify(folder: Path, hear: Hear | None = None) -> dict[str, Any]:
    """The manifest, every byte of every file checked against it. Raises CheckpointError that names what is wrong."""
    manifest = manifest_of(folder)
    total, done = sum(told["bytes"] for told in manifest["files"].values()), 0
    for name, told in manifest["files"].items():

        def count(num_bytes: int, name: str = name) -> None:
            nonlocal done
            done += num_bytes
            if hear is not None:
                hear(name, done, total)

        _same(folder / name, building.hash_file(folder / name, count), told)
    return manifest


def _same(path: Path, found: str, told: Mapping[str, Any]) -> None:
    if found != told["sha256"]:
        raise CheckpointError(f"{path} is damaged: its sha256 is {found}, {MANIFEST} says {told['sha256']}")


def read(folder: Path) -> Stored:
    """Open a model that `write` wrote: sizes, headers and small files are checked, the weights' hashes are not (see
    `verify`). Raises CheckpointError for one that is damaged or foreign."""
    manifest = manifest_of(folder)
    holding = tensor_files(manifest)
    small = {}
    for name, told in manifest["files"].items():
        if name not in holding:
            data = (folder / name).read_bytes()
            _same(folder / name, sha256(data), told)
            small[name] = data
    seen = {name: look(folder / name) for name in sorted(holding)}
    headers = {name: read_header(one) for name, one in seen.items()}
    places = {name: _place(folder, name, told, headers) for name, told in manifest["tensors"].items()}
    config = json.loads(small.pop(CONFIG))
    identity = sha256((folder / MANIFEST).read_bytes())
    return Stored(config=config, tensors=lazily(places, seen), identity=identity, files=small, places=places)


def _place(folder: Path, name: str, told: Mapping[str, Any], headers: Mapping[str, dict[str, Entry]]) -> Place:
    """A tensor of the manifest, checked against the header of its file."""
    try:
        file, info = told["file"], Info(kept=str(told["kept"]), shape=tuple(told["shape"]))
        spans = {f".{part}" if part != "plain" else "": (at, size) for part, (at, size) in told["parts"].items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise CheckpointError(f"{folder}/{MANIFEST} describes {name} as {told!r}; expected file, kept, parts") from None
    parts = {}
    for ending, (dtype, shape) in checked(info, f"{folder}/{MANIFEST}: {name}").parts.items():
        entry = headers[file].get(f"{name}{ending}")
        if entry is None:
            raise CheckpointError(f"{folder / file} has no tensor {name}{ending}; {MANIFEST} lists it")
        if (entry.dtype, entry.shape) != (dtype, shape):
            raise CheckpointError(
                f"{folder / file}: {name}{ending} has {entry.dtype} of shape {entry.shape}, "
                f"{MANIFEST} says {dtype} of shape {shape}"
            )
        if spans.get(ending) != (entry.offset, entry.num_bytes):
            raise CheckpointError(
                f"{folder / file}: {name}{ending} lies at {entry.offset} with {entry.num_bytes} bytes, "
                f"{MANIFEST} says {spans.get(ending)}"
            )
        parts[ending] = entry
    return Place(file=file, info=info, parts=parts)


def lazily(places: Mapping[str, Place], seen: Mapping[str, Seen]) -> Tensors:
    """Tensors that are read from their files when they are asked for."""

    def load(name: str) -> Weight:
        place = places[name]
        file = seen[place.file]
        return from_parts(
            place.info,
            {
                ending: from_bytes(read_bytes(file, entry.offset, entry.num_bytes), entry.dtype, entry.shape)
                for ending, entry in place.parts.items()
            },
        )

    return Tensors({name: place.info for name, place in places.items()}, load)


def fill(module: torch.nn.Module, stored: Stored, *, what: str) -> None:
    """Copy the tensors into a module's parameters; packed ones are widened. Raises CheckpointError for names or shapes
    that do not fit."""
    own = dict(module.named_parameters())
    missing, extra = sorted(set(own) - set(stored.tensors)), sorted(set(stored.tensors) - set(own))
    if missing or extra:
        raise CheckpointError(
            f"{what} does not fit its configuration: missing {', '.join(missing[:3]) or 'nothing'}, "
            f"unknown {', '.join(extra[:3]) or 'nothing'}"
        )
    with torch.no_grad():
        for name, parameter in own.items():
            shape = stored.tensors.info(name).shape
            if parameter.shape != shape:
                raise CheckpointError(
                    f"{what}: {name} has shape {shape}, its configuration says {tuple(parameter.shape)}"
                )
            parameter.copy_(widened(stored.tensors[name], torch.float32))

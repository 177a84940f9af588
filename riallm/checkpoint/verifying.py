"""Whether a model on the disk is what it should be: every hash that there is, and every size and header."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from riallm.checkpoint import building, huggingface
from riallm.checkpoint import folder as folders
from riallm.checkpoint.building import Hear
from riallm.checkpoint.carried import SUMS
from riallm.checkpoint.folder import CONFIG, MANIFEST
from riallm.checkpoint.gguf import open_gguf
from riallm.checkpoint.reading import look
from riallm.core.errors import CheckpointError, UsageError

LINE = re.compile(r"([0-9a-f]{64}) [ *]([^/\0]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What was looked at. num_hashed: files whose every byte was compared with a hash; the rest have right sizes and
    headers, which is all that their form can tell."""

    path: Path
    form: Literal["split", "hf", "gguf"]
    num_tensors: int
    num_hashed: int
    num_bytes: int


def verify(path: Path, hear: Hear | None = None) -> Verified:
    """Raises CheckpointError that names the first thing that is wrong, UsageError where no model is."""
    if path.is_file():
        if path.suffix != ".gguf":
            raise UsageError(f"{path} is no model; expected a folder or a .gguf file")
        return _gguf([path], _sums(path.with_name(f"{path.name}.sha256"), path.parent), path, hear)
    if not path.is_dir():
        raise UsageError(f"{path} is not there; expected a model folder or a .gguf file")
    if (path / MANIFEST).exists():
        told = folders.verify(path, hear)["files"]
        stored = folders.read(path)
        return Verified(
            path=path,
            form="split",
            num_tensors=len(stored.tensors),
            num_hashed=len(told),
            num_bytes=sum(one["bytes"] for one in told.values()),
        )
    sums = _sums(path / SUMS, path)
    files = sorted(path.glob("*.gguf"))
    if files and not (path / CONFIG).exists():
        return _gguf(files, sums, path, hear)
    stored = huggingface.read(path)
    num_bytes = _hashed(sums, hear)
    return Verified(path=path, form="hf", num_tensors=len(stored.tensors), num_hashed=len(sums), num_bytes=num_bytes)


def _gguf(files: list[Path], sums: Mapping[Path, str], path: Path, hear: Hear | None) -> Verified:
    models = [open_gguf(file) for file in files]
    num_bytes = _hashed(sums, hear)
    return Verified(
        path=path,
        form="gguf",
        num_tensors=len({(at, name) for at, model in enumerate(models) for name in model.tensors}),
        num_hashed=len(sums),
        num_bytes=num_bytes,
    )


def _sums(path: Path, folder: Path) -> dict[Path, str]:
    """File -> sha256, of the form that `sha256sum --check` reads; nothing where there is none."""
    if not path.exists():
        return {}
    found = {}
    for line in path.read_text("utf-8", "replace").splitlines():
        matched = LINE.fullmatch(line)
        if not matched:
            raise CheckpointError(f"{path} has the line {line!r}; expected a hash and the name of a file beside it")
        found[folder / matched[2]] = matched[1]
    return found


def _hashed(sums: Mapping[Path, str], hear: Hear | None) -> int:
    """Bytes of the files, all of which have their hash."""
    total, done = sum(look(file).num_bytes for file in sums), 0
    for file, expected in sums.items():

        def count(num_bytes: int, name: str = file.name) -> None:
            nonlocal done
            done += num_bytes
            if hear is not None:
                hear(name, done, total)

        found = building.hash_file(file, count)
        if found != expected:
            raise CheckpointError(
                f"{file} is damaged: its sha256 is {found}, expected {expected}; copy or download it again"
            )
    return total

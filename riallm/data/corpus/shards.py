"""Shards: one xz file of JSON lines a package, a line a row; whole or absent, and read as a stream."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from riallm.core.errors import UsageError
from riallm.core.files import atomic_write, canonical_json, sha256
from riallm.data.corpus.rows import Document, Row

MANIFEST = "manifest.json"


def shard(folder: Path, package: str) -> Path:
    """Where a package's rows lie."""
    return folder / f"{package}.jsonl.xz"


def write(path: Path, rows: Iterable[Row]) -> str:
    """Write a shard in one step; the sha256 of its lines. Raises UsageError when the disk is full."""
    lines = b"".join(canonical_json(asdict(row)).encode() + b"\n" for row in rows)
    put(path, lzma.compress(lines, preset=3))
    return sha256(lines)


def put(path: Path, data: bytes) -> None:
    """`atomic_write`, with plain words for a folder that takes nothing more."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, data)
    except OSError as error:
        raise UsageError(
            f"{path.name} could not be written ({error}); nothing of it was kept. Make room or give --out, and build"
            " again: finished packages stay."
        ) from error


def read(path: Path) -> Iterator[Row]:
    """The rows of a shard. Raises UsageError for a file that is cut off or no shard."""
    try:
        with lzma.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                yield parse(json.loads(line))
    except (OSError, EOFError, lzma.LZMAError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path.name} is no whole shard ({error}); delete it and build again.") from error


def parse(entry: dict[str, Any]) -> Row:
    """A row from its JSON object."""
    documents = tuple(
        Document(**{**document, "imports": tuple(document["imports"]), "same_module": tuple(document["same_module"])})
        for document in entry["documents"]
    )
    return Row(package=entry["package"], version=entry["version"], split=entry["split"], documents=documents)


def read_corpus(folder: Path, split: str) -> Iterator[Row]:
    """All rows of a split, package by package, in the order of the manifest.

    Raises UsageError when the corpus is not built to the end, or has no such split.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise UsageError(
            f"{folder} holds no finished corpus; build one with `riallm data build RECIPE --out {folder}`."
        )
    if split not in ("train", "validation"):
        raise UsageError(f"no split '{split}'; there are train and validation")
    for entry in json.loads(path.read_text(encoding="utf-8"))["packages"]:
        if entry["split"] == split:
            yield from read(shard(folder, entry["name"]))

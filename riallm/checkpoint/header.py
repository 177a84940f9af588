"""The header of a safetensors file: eight bytes of length, JSON, then the data. Read with every claim checked, and
written so that the data begins at a page.

    {"NAME": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}, ..., "__metadata__": {"a": "text"}}

The format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from riallm.checkpoint.reading import Seen, read
from riallm.core.errors import CheckpointError

MOST_BYTES = 100_000_000
"""The format's own limit for a header."""
PAGE = 4096
"""Data begins at a multiple of this, so that it can be read past the page cache."""

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One tensor. offset: where its bytes begin in the file. num_bytes: their number."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    num_bytes: int


def read_header(seen: Seen) -> dict[str, Entry]:
    """Name -> entry in the order of the data. Raises CheckpointError for a header that lies about anything."""
    path, size = seen.path, seen.num_bytes
    if size < 8:
        raise CheckpointError(f"{path} has {size} bytes; a safetensors file has at least 8. Copy or download it again")
    length = int.from_bytes(bytes(read(seen, 0, 8).numpy()), "little")
    if length > MOST_BYTES or 8 + length > size:
        raise CheckpointError(
            f"{path} says that its header has {length} bytes; the file has {size} and the limit is {MOST_BYTES}. "
            "It is damaged or no safetensors file; copy or download it again"
        )
    try:
        found = json.loads(bytes(read(seen, 8, length).numpy()), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} has a header that is no JSON ({error}); copy or download it again") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} has a header that is no object; copy or download it again")
    found.pop("__metadata__", None)
    start = 8 + length
    entries = {name: _entry(f"{path}: {name}", told, start) for name, told in found.items()}
    ordered = dict(sorted(entries.items(), key=lambda item: (item[1].offset, item[1].num_bytes)))
    at = start
    for name, entry in ordered.items():
        if entry.offset != at:
            raise CheckpointError(
                f"{path}: {name} begins at {entry.offset}, the tensor before it ends at {at}; expected no gap and no "
                "overlap. Copy or download the file again"
            )
        at += entry.num_bytes
    if at != size:
        raise CheckpointError(
            f"{path} has {size} bytes, its header says {at}: it was cut off or replaced. Copy or download it again"
        )
    return ordered


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _entry(what: str, told: Any, start: int) -> Entry:
    """start: where the data begins in the file."""
    try:
        dtype, shape, (begin, end) = told["dtype"], told["shape"], told["data_offsets"]
        numbers = [begin, end, *shape]
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(f"{what} is described by {told!r}; expected dtype, shape and data_offsets") from None
    if not all(type(number) is int and 0 <= number < 1 << 62 for number in numbers) or end < begin:
        raise CheckpointError(f"{what} has shape {shape} at {begin} to {end}; expected numbers that are not negative")
    if dtype not in DTYPES:
        raise CheckpointError(f"{what} has type {dtype!r}; known are {', '.join(DTYPES)}")
    expected = prod(shape) * DTYPES[dtype].itemsize
    if end - begin != expected:
        raise CheckpointError(f"{what} has {end - begin} bytes; {dtype} of shape {tuple(shape)} has {expected}")
    return Entry(dtype=DTYPES[dtype], shape=tuple(shape), offset=start + begin, num_bytes=expected)


def header_of(
    tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], metadata: Mapping[str, str] | None = None
) -> tuple[bytes, dict[str, Entry]]:
    """The bytes before the data, spaces at their end up to a page, and where each tensor lies; in the order given."""
    told: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    at, spans = 0, {}
    for name, (dtype, shape) in tensors.items():
        num_bytes = prod(shape) * dtype.itemsize
        told[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [at, at + num_bytes]}
        spans[name] = (at, num_bytes)
        at += num_bytes
    text = json.dumps(told, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % PAGE)
    start = 8 + len(text)
    entries = {
        name: Entry(dtype=dtype, shape=shape, offset=start + spans[name][0], num_bytes=spans[name][1])
        for name, (dtype, shape) in tensors.items()
    }
    return len(text).to_bytes(8, "little") + text, entries


def end_of(head: bytes, entries: Iterable[Entry]) -> int:
    """Bytes of the whole file."""
    return len(head) + sum(entry.num_bytes for entry in entries)

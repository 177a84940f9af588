"""The header of a GGUF file: metadata and where each tensor lies, every length and offset checked before it is used.

The `gguf` package reads the same, but maps the file, trusts its lengths, and takes seconds for a large vocabulary.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; little-endian, versions 2 and 3.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from riallm.checkpoint.reading import Seen
from riallm.core.errors import CheckpointError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32
MOST_DIMENSIONS = 4
STRING, ARRAY = 8, 9
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Number of a type in the file -> letter of `struct`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GGUFTensor:
    """One tensor. shape: rows first, the other way round than in the file. offset: in the file."""

    type: GGMLQuantizationType
    shape: tuple[int, ...]
    offset: int
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GGUFHeader:
    """metadata: numbers, text, and lists of these. tensors: in the order of the file's table."""

    metadata: dict[str, Any]
    tensors: dict[str, GGUFTensor]


class _Cursor:
    """Reads forward and never past the end of the file."""

    def __init__(self, file: BinaryIO, seen: Seen) -> None:
        self.file, self.seen, self.at = file, seen, 0

    def take(self, num_bytes: int, what: str) -> bytes:
        if num_bytes > self.seen.num_bytes - self.at:
            raise CheckpointError(
                f"{self.seen.path} says that {what} at {self.at} has {num_bytes} bytes; the file has "
                f"{self.seen.num_bytes}. It is damaged or cut off; copy or download it again"
            )
        data = self.file.read(num_bytes)
        if len(data) != num_bytes:
            raise CheckpointError(f"{self.seen.path} ends in {what}: expected {num_bytes} bytes, got {len(data)}")
        self.at += num_bytes
        return data

    def number(self, letter: str, what: str) -> Any:
        return struct.unpack(f"<{letter}", self.take(struct.calcsize(f"<{letter}"), what))[0]

    def count(self, letter: str, at_least: int, what: str) -> int:
        """How many follow; each has at least so many bytes, so that a lie is seen before it is believed."""
        number = int(self.number(letter, what))
        left = self.seen.num_bytes - self.at
        if number * at_least > left:
            raise CheckpointError(
                f"{self.seen.path} says that it has {number} {what}; {left} bytes are left, too few for them. "
                "It is damaged or cut off; copy or download it again"
            )
        return number

    def text(self, what: str) -> str:
        data = self.take(int(self.number("Q", what)), what)
        return data.decode("utf-8", "surrogateescape")


def read_header(seen: Seen) -> GGUFHeader:
    """Raises CheckpointError for what is no GGUF file, or one whose header lies about anything."""
    with seen.path.open("rb", buffering=1 << 20) as file:
        cursor = _Cursor(file, seen)
        if cursor.take(4, "magic") != MAGIC:
            raise CheckpointError(f"{seen.path} is no GGUF file: it does not begin with {MAGIC.decode()}")
        version = cursor.number("I", "version")
        if version not in VERSIONS:
            raise CheckpointError(
                f"{seen.path} has version {version}; known are {VERSIONS[0]} and {VERSIONS[1]}, little-endian"
            )
        num_tensors = cursor.count("Q", 24, "tensors")
        num_pairs = cursor.count("Q", 13, "pairs of metadata")
        metadata: dict[str, Any] = {}
        for _ in range(num_pairs):
            key = cursor.text("a key")
            if key in metadata:
                raise CheckpointError(f"{seen.path} has the key {key} twice; download the file again")
            metadata[key] = _value(cursor, cursor.number("I", key), key)
        rows = _rows(cursor, num_tensors)
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1) or alignment > 1 << 20:
        raise CheckpointError(f"{seen.path} has general.alignment {alignment!r}; expected a power of two")
    start = -(-cursor.at // alignment) * alignment
    return GGUFHeader(metadata=metadata, tensors=_tensors(seen, rows, start, alignment))


def _value(cursor: _Cursor, kind: int, key: str) -> Any:
    if kind == STRING:
        return cursor.text(key)
    if kind in SCALARS:
        return cursor.number(SCALARS[kind], key)
    if kind != ARRAY:
        raise CheckpointError(f"{cursor.seen.path}: {key} has a value of type {kind}, which the format does not have")
    inner = cursor.number("I", key)
    if inner == STRING:
        return [cursor.text(key) for _ in range(cursor.count("Q", 8, f"texts in {key}"))]
    if inner not in SCALARS:
        raise CheckpointError(f"{cursor.seen.path}: {key} is a list of type {inner}; expected numbers or texts")
    letter = SCALARS[inner]
    width = struct.calcsize(f"<{letter}")
    number = cursor.count("Q", width, f"numbers in {key}")
    return np.frombuffer(cursor.take(number * width, key), dtype=np.dtype(letter).newbyteorder("<")).tolist()


def _rows(cursor: _Cursor, number: int) -> list[tuple[str, tuple[int, ...], int, int]]:
    """Name, shape, number of the type, offset in the data."""
    rows = []
    for _ in range(number):
        name = cursor.text("a tensor's name")
        num_dimensions = cursor.number("I", name)
        if not 1 <= num_dimensions <= MOST_DIMENSIONS:
            raise CheckpointError(f"{cursor.seen.path}: {name} has {num_dimensions} dimensions; expected 1 to 4")
        shape = tuple(int(cursor.number("Q", name)) for _ in range(num_dimensions))[::-1]
        rows.append((name, shape, int(cursor.number("I", name)), int(cursor.number("Q", name))))
    return rows


def _tensors(
    seen: Seen, rows: list[tuple[str, tuple[int, ...], int, int]], start: int, alignment: int
) -> dict[str, GGUFTensor]:
    """start: where the data begins in the file."""
    found: dict[str, GGUFTensor] = {}
    for name, shape, number, offset in rows:
        what = f"{seen.path}: {name}"
        if name in found:
            raise CheckpointError(f"{what} stands there twice; download the file again")
        try:
            kind = GGMLQuantizationType(number)
        except ValueError:
            raise CheckpointError(f"{what} has type {number}, which is not known; update the gguf package") from None
        block, width = GGML_QUANT_SIZES[kind]
        if prod(shape) >= 1 << 62 or shape[-1] % block:
            raise CheckpointError(f"{what} has shape {shape}; {kind.name} needs rows of whole blocks of {block}")
        num_bytes = prod(shape) // block * width
        if offset % alignment or start + offset + num_bytes > seen.num_bytes:
            raise CheckpointError(
                f"{what} lies at {start + offset} with {num_bytes} bytes; expected a multiple of {alignment} from "
                f"{start} on, and an end within the file's {seen.num_bytes} bytes. Copy or download it again"
            )
        found[name] = GGUFTensor(type=kind, shape=shape, offset=start + offset, num_bytes=num_bytes)
    at = start
    for name, tensor in sorted(found.items(), key=lambda item: item[1].offset):
        if tensor.num_bytes and tensor.offset < at:
            raise CheckpointError(f"{seen.path}: {name} at {tensor.offset} overlaps the tensor before, up to {at}")
        at = max(at, tensor.offset + tensor.num_bytes)
    return found

"""Writing GGUF files that llama.cpp and its kin read: the header first, then tensor by tensor."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

from gguf import GGML_QUANT_SIZES, LlamaFileType
from gguf import GGMLQuantizationType as Type
from torch import Tensor

from riallm.checkpoint import building
from riallm.checkpoint.building import FilePlan, Hear, Item, Work
from riallm.checkpoint.gguf import PACKED, PLAIN, q4_0_bytes, q8_0_bytes
from riallm.checkpoint.gguf_header import ALIGNMENT, ARRAY, MAGIC, SCALARS, STRING
from riallm.checkpoint.tensors import Info, Tensors, Weight, as_bytes
from riallm.core.errors import CheckpointError, UsageError
from riallm.core.files import canonical_json, sha256

VERSION = 3
TYPES: dict[str, Type] = {name: kind for kind, name in (PLAIN | PACKED).items()}
"""Way of keeping -> type in the file."""
FILE_TYPES: dict[Type, LlamaFileType] = {
    Type.F32: LlamaFileType.ALL_F32,
    Type.F16: LlamaFileType.MOSTLY_F16,
    Type.BF16: LlamaFileType.MOSTLY_BF16,
    Type.Q8_0: LlamaFileType.MOSTLY_Q8_0,
    Type.Q4_0: LlamaFileType.MOSTLY_Q4_0,
    Type.Q4_K: LlamaFileType.MOSTLY_Q4_K_M,
    Type.Q6_K: LlamaFileType.MOSTLY_Q6_K,
}
UINT32, INT32, FLOAT32, BOOL = 4, 5, 6, 7


def write(
    path: Path,
    metadata: Mapping[str, Any],
    tensors: Tensors,
    *,
    resume: str | None = None,
    hear: Hear | None = None,
) -> None:
    """Write a file, and its hash beside it as NAME.sha256; whole or absent. metadata: whole numbers become uint32 (in
    lists int32), others float32. resume: a word for the source, as in `folder.write`. Raises CheckpointError for a
    tensor that the format cannot hold, a file that is there, or a full disk."""
    types = {name: _type(name, tensors.info(name)) for name in tensors}
    sizes = Counter[Type]()
    for name, kind in types.items():
        sizes[kind] += tensors.info(name).num_bytes
    told = dict(metadata)
    if sizes:
        told["general.file_type"] = int(FILE_TYPES[sizes.most_common(1)[0][0]])
        told["general.quantization_version"] = 2
    items, table, at = [], [], 0
    for name, kind in types.items():
        shape = tensors.info(name).shape
        block, width = GGML_QUANT_SIZES[kind]
        num_bytes = prod(shape) // block * width
        table.append(
            text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape[::-1]) + struct.pack("<IQ", int(kind), at)
        )
        items.append(Item(name=name, num_bytes=num_bytes, padding=-num_bytes % ALIGNMENT))
        at += num_bytes + items[-1].padding
    head = MAGIC + struct.pack("<IQQ", VERSION, len(table), len(told))
    head += b"".join(text(key) + value_of(key, value) for key, value in told.items()) + b"".join(table)
    head += bytes(-len(head) % ALIGNMENT)

    def chunks(name: str) -> Iterator[memoryview]:
        yield as_bytes_of(tensors[name])

    work = Work(
        files={path.name: FilePlan(head=head, items=tuple(items))},
        chunks=chunks,
        closing=lambda done: {f"{path.name}.sha256": building.sums_of(done, {})},
        identity=sha256(canonical_json([resume, sha256(head)]).encode()),
    )
    building.build_one(path, work, hear=hear)


def as_bytes_of(weight: Weight) -> memoryview:
    """As the file has it."""
    if isinstance(weight, Tensor):
        return as_bytes(weight)
    if weight.kind == "int8":
        return as_bytes(q8_0_bytes(weight))
    return as_bytes(q4_0_bytes(weight) if weight.kind == "int4" else weight.codes)


def _type(name: str, info: Info) -> Type:
    if info.kept not in TYPES:
        raise CheckpointError(
            f"{name} is kept as {info.kept}, which GGUF files do not have; there are {', '.join(TYPES)}. Choose "
            "another compression"
        )
    return TYPES[info.kept]


def text(value: str) -> bytes:
    """Length and bytes."""
    data = value.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(data)) + data


def value_of(key: str, value: Any) -> bytes:
    """Type and value of a pair of metadata. Raises UsageError for what the format cannot say."""
    if isinstance(value, list):
        kind = _kind(key, value[0] if value else 0, INT32)
        if any(_kind(key, item, INT32) != kind for item in value):
            raise UsageError(f"{key} has values of several types; GGUF lists have one")
        return struct.pack("<IIQ", ARRAY, kind, len(value)) + b"".join(_bytes(item, kind) for item in value)
    kind = _kind(key, value, UINT32)
    return struct.pack("<I", kind) + _bytes(value, kind)


def _kind(key: str, value: Any, whole: int) -> int:
    for python, kind in ((bool, BOOL), (str, STRING), (int, whole), (float, FLOAT32)):
        if isinstance(value, python):
            return kind
    raise UsageError(f"{key} is {value!r}; GGUF metadata is text, numbers, and lists of these")


def _bytes(value: Any, kind: int) -> bytes:
    return text(value) if kind == STRING else struct.pack(f"<{SCALARS[kind]}", value)

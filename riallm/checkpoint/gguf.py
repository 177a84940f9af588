"""Models in GGUF files, as llama.cpp has them: metadata and vocabulary as plain data, tensors when they are asked for.

    Q4_0, Q8_0       become "int4", "int8": the same numbers, the bytes in our order
    Q4_K, Q6_K       stay packed as they are
    F32, F16, BF16   stay as they are
    all others       become float32, what the `gguf` package makes of them

Letters: O rows, N blocks of a row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from torch import Tensor

from riallm.checkpoint.gguf_header import GGUFTensor, read_header
from riallm.checkpoint.reading import Seen, look, read
from riallm.checkpoint.tensors import CHUNK_ELEMENTS, Info, Tensors, Weight, from_bytes
from riallm.core.errors import CheckpointError
from riallm.core.files import canonical_json, sha256
from riallm.quant import blocks, superblocks
from riallm.quant.packed import Kind, Packed

PLAIN = {Type.F32: "float32", Type.F16: "float16", Type.BF16: "bfloat16"}
PACKED: dict[Type, Kind] = {Type.Q4_0: "int4", Type.Q8_0: "int8", Type.Q4_K: "q4_k", Type.Q6_K: "q6_k"}
SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


@dataclass(frozen=True, slots=True, kw_only=True)
class GGUFVocabulary:
    """The tokenizer of a file. model: "gpt2" (byte pairs) or "llama" (sentencepiece). types: 1 normal, 2 unknown,
    3 control, 4 user-defined, 6 byte. merges: "left right". pre: name of the pattern that cuts text. special: role
    ("bos", "eos", ...) -> id. flags: add_bos_token and the like."""

    model: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]
    scores: tuple[float, ...]
    pre: str | None
    special: Mapping[str, int]
    flags: Mapping[str, bool]
    chat_template: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GGUFModel:
    """A file, or several that belong together. metadata: all but the vocabulary's lists. identity: changes with the
    header, the size and the time of a file."""

    metadata: Mapping[str, Any]
    vocabulary: GGUFVocabulary | None
    tensors: Tensors
    identity: str

    @property
    def architecture(self) -> str:
        """ "llama", "qwen2" or whatever the file says."""
        return str(self.metadata.get("general.architecture", ""))


def open_gguf(path: Path) -> GGUFModel:
    """Open a model; no tensor is read. Of several files, any one is named. Raises CheckpointError for a damaged one."""
    metadata: dict[str, Any] = {}
    found: dict[str, tuple[Seen, GGUFTensor]] = {}
    told = []
    for at, one in enumerate(_files(path)):
        seen = look(one)
        header = read_header(seen)
        metadata = metadata or header.metadata
        if at and header.tensors.keys() & found.keys():
            raise CheckpointError(f"{one} has tensors that an earlier file has, too; download the files again")
        found |= {name: (seen, tensor) for name, tensor in header.tensors.items()}
        told.append([seen.num_bytes, seen.mtime_ns, list(header.tensors)])
    vocabulary = _vocabulary(path, metadata)
    few = {key: value for key, value in metadata.items() if not isinstance(value, list) or len(value) <= 1024}
    identity = sha256(canonical_json([few, told]).encode())
    infos = {name: info_of(tensor) for name, (_, tensor) in found.items()}

    def load(name: str) -> Weight:
        seen, tensor = found[name]
        return weight_of(read(seen, tensor.offset, tensor.num_bytes), tensor)

    return GGUFModel(metadata=few, vocabulary=vocabulary, tensors=Tensors(infos, load), identity=identity)


def _files(path: Path) -> list[Path]:
    """The file, or all files of a model in several, in order. Raises CheckpointError where one is missing."""
    matched = SHARD.fullmatch(path.name)
    if not matched:
        return [path]
    total = int(matched[3])
    files = [path.with_name(f"{matched[1]}-{at:05d}-of-{total:05d}.gguf") for at in range(1, total + 1)]
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise CheckpointError(f"{path.parent} lacks {', '.join(missing[:3])}; the model has {total} files")
    return files


def info_of(tensor: GGUFTensor) -> Info:
    """How the tensor is kept here."""
    kind = PACKED.get(tensor.type)
    if kind is not None and len(tensor.shape) == 2:
        return Info(kept=kind, shape=tensor.shape)
    return Info(kept=PLAIN.get(tensor.type, "float32"), shape=tensor.shape)


def weight_of(data: Tensor, tensor: GGUFTensor) -> Weight:
    """Bytes of a tensor (uint8) as a weight. Raises CheckpointError for a type that the gguf package cannot decode."""
    info = info_of(tensor)
    if tensor.type in PLAIN:
        return from_bytes(data, next(iter(info.parts.values()))[0], tensor.shape)
    if info.kept in superblocks.BYTES:
        return Packed(kind="q4_k" if info.kept == "q4_k" else "q6_k", codes=data.view(tensor.shape[0], -1), scales=None)
    if info.kept == "int8":
        return _q8_0(data, tensor.shape[0])
    if info.kept == "int4":
        return _q4_0(data, tensor.shape[0])
    return _decoded(data, tensor)


def _q8_0(data: Tensor, rows: int) -> Packed:
    """Blocks of a scale and 32 codes -> codes (O, 32 N) and scales (O, N)."""
    whole = data.view(rows, -1, 34)  # (O, N, 34)
    scales = whole[..., :2].contiguous().view(torch.float16).reshape(rows, -1)
    return Packed(kind="int8", codes=whole[..., 2:].contiguous().view(torch.int8).view(rows, -1), scales=scales)


def _q4_0(data: Tensor, rows: int) -> Packed:
    """Low halves of a block's 16 bytes are its first 16 codes, high halves the rest; ours hold neighbours."""
    whole = data.view(rows, -1, 18)  # (O, N, 18)
    scales = whole[..., :2].contiguous().view(torch.float16).reshape(rows, -1)
    halves = whole[..., 2:]
    codes = torch.cat((halves & 15, halves >> 4), dim=-1).view(rows, -1)  # (O, 32 N)
    return Packed(kind="int4", codes=codes[:, 0::2] | (codes[:, 1::2] << 4), scales=scales)


def q8_0_bytes(packed: Packed) -> Tensor:
    """The inverse of reading: (O, 34 N) uint8."""
    assert packed.scales is not None
    rows = packed.codes.shape[0]
    scales = packed.scales.contiguous().view(torch.uint8).view(rows, -1, 2)
    codes = packed.codes.contiguous().view(torch.uint8).view(rows, -1, blocks.BLOCK)
    return torch.cat((scales, codes), dim=-1).view(rows, -1)


def q4_0_bytes(packed: Packed) -> Tensor:
    """The inverse of reading: (O, 18 N) uint8."""
    assert packed.scales is not None
    rows = packed.codes.shape[0]
    codes = torch.stack((packed.codes & 15, packed.codes >> 4), dim=-1).view(rows, -1, blocks.BLOCK)
    halves = codes[..., :16] | (codes[..., 16:] << 4)
    return torch.cat((packed.scales.contiguous().view(torch.uint8).view(rows, -1, 2), halves), dim=-1).view(rows, -1)


def _decoded(data: Tensor, tensor: GGUFTensor) -> Tensor:
    """What the gguf package makes of it, some rows at a time."""
    rows = data.view(-1, data.numel() // max(1, _num_rows(tensor))).numpy()
    target = torch.empty(rows.shape[0], tensor.shape[-1])
    step = max(1, CHUNK_ELEMENTS // tensor.shape[-1])
    try:
        for at in range(0, rows.shape[0], step):
            with np.errstate(all="ignore"):  # a scale that is no number gives none, as everywhere
                some = gguf.quants.dequantize(rows[at : at + step], tensor.type)
            target[at : at + step] = torch.from_numpy(np.ascontiguousarray(some, dtype=np.float32))
    except NotImplementedError:
        raise CheckpointError(
            f"a tensor has type {tensor.type.name}, which the gguf package cannot decode; get the model in another type"
        ) from None
    return target.view(tensor.shape)


def _num_rows(tensor: GGUFTensor) -> int:
    number = 1
    for size in tensor.shape[:-1]:
        number *= size
    return number


LISTS: dict[str, Callable[[Any], Any]] = {"tokens": str, "token_type": int, "merges": str, "scores": float}


def _vocabulary(path: Path, metadata: Mapping[str, Any]) -> GGUFVocabulary | None:
    prefix = "tokenizer.ggml."
    if metadata.get(f"{prefix}model", "none") in ("none", "no_vocab"):  # llama.cpp's words for a file without one
        return None
    lists = {name: metadata.get(f"{prefix}{name}", []) for name in LISTS}
    for name, items in lists.items():
        if not isinstance(items, list) or any(type(item) is not LISTS[name] for item in items):
            raise CheckpointError(f"{path}: {prefix}{name} is no list of {LISTS[name].__name__}; download it again")
        if items and name != "merges" and len(items) != len(lists["tokens"]):
            raise CheckpointError(f"{path} has {len(lists['tokens'])} tokens and {len(items)} of {prefix}{name}")
    scalars = {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}
    special = {key.removesuffix("_token_id"): value for key, value in scalars.items() if key.endswith("_token_id")}
    wrong = [role for role, value in special.items() if type(value) is not int or not 0 <= value < len(lists["tokens"])]
    if wrong:
        raise CheckpointError(f"{path}: the {wrong[0]} token is {special[wrong[0]]}; expected one of the vocabulary")
    template, pre = metadata.get("tokenizer.chat_template"), scalars.get("pre")
    return GGUFVocabulary(
        model=str(scalars["model"]),
        tokens=tuple(lists["tokens"]),
        types=tuple(lists["token_type"]),
        merges=tuple(lists["merges"]),
        scores=tuple(lists["scores"]),
        pre=None if pre is None else str(pre),
        special=special,
        flags={key: value for key, value in scalars.items() if type(value) is bool},
        chat_template=None if template is None else str(template),
    )

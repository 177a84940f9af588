"""GGUF files: the `gguf` package writes what we read and reads what we write, bit for bit; lies are refused."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGML_QUANT_SIZES, GGUFReader, GGUFWriter
from gguf import GGMLQuantizationType as Type

from riallm.checkpoint import gguf_write
from riallm.checkpoint.gguf import PACKED, open_gguf
from riallm.checkpoint.tensors import in_memory, widened
from riallm.core.errors import CheckpointError, UsageError
from riallm.quant.packed import Packed, quantise

SHAPE = (6, 512)
QUANTISED = [Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0, Type.TQ1_0, Type.TQ2_0, Type.MXFP4]
"""What the package can make itself."""
ONLY_READ = [
    Type.Q2_K,
    Type.Q3_K,
    Type.Q4_K,
    Type.Q5_K,
    Type.Q6_K,
    Type.IQ4_NL,
    Type.IQ4_XS,
    Type.IQ2_XXS,
    Type.IQ3_S,
    Type.NVFP4,
]
UNKNOWN = [Type.Q8_K, Type.F64, Type.I32]
"""What it cannot decode."""


def numbers() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)


def any_bytes(kind: Type) -> np.ndarray[Any, Any]:
    block, width = GGML_QUANT_SIZES[kind]
    return np.random.default_rng(0).integers(0, 256, (SHAPE[0], SHAPE[1] // block * width), dtype=np.uint8)


def written(path: Path, fill: Callable[[GGUFWriter], None], arch: str = "llama") -> Path:
    """A file by the package."""
    writer = GGUFWriter(path, arch)
    fill(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def with_tensor(path: Path, data: np.ndarray[Any, Any], kind: Type) -> Path:
    return written(path, lambda writer: writer.add_tensor("t", data, raw_dtype=kind))


@pytest.mark.parametrize("kind", [*QUANTISED, *ONLY_READ], ids=lambda kind: kind.name)
def test_every_type_is_what_the_package_decodes(tmp_path: Path, kind: Type) -> None:
    data = gguf.quants.quantize(numbers(), kind) if kind in QUANTISED else any_bytes(kind)
    tensors = open_gguf(with_tensor(tmp_path / "x.gguf", data, kind)).tensors
    weight = tensors["t"]
    with np.errstate(all="ignore"):  # any bytes are scales, too, and some of them no numbers
        expected = gguf.quants.dequantize(data, kind).astype(np.float32)
        found = widened(weight, torch.float32).numpy()
        assert found.shape == SHAPE
        np.testing.assert_array_equal(found, expected)
    if kind in PACKED:
        assert isinstance(weight, Packed) and weight.kind == PACKED[kind] == tensors.info("t").kept
    if kind in (Type.Q4_K, Type.Q6_K):
        assert isinstance(weight, Packed) and weight.codes.numpy().tobytes() == data.tobytes()


def test_plain_types_stay_as_they_are(tmp_path: Path) -> None:
    def fill(writer: GGUFWriter) -> None:
        writer.add_tensor("f32", numbers())
        writer.add_tensor("f16", numbers().astype(np.float16))
        writer.add_tensor("bf16", gguf.quants.quantize(numbers(), Type.BF16), raw_dtype=Type.BF16)
        writer.add_tensor("vector", numbers()[0])

    tensors = open_gguf(written(tmp_path / "x.gguf", fill)).tensors
    whole = torch.from_numpy(numbers())
    for name, expected in (
        ("f32", whole),
        ("f16", whole.half()),
        ("bf16", whole.bfloat16()),
        ("vector", whole[0]),
    ):
        weight = tensors[name]
        assert isinstance(weight, torch.Tensor) and weight.dtype == expected.dtype and torch.equal(weight, expected)


@pytest.mark.parametrize("kind", UNKNOWN, ids=lambda kind: kind.name)
def test_what_cannot_be_decoded_is_said_when_it_is_asked_for(tmp_path: Path, kind: Type) -> None:
    tensors = open_gguf(with_tensor(tmp_path / "x.gguf", any_bytes(kind), kind)).tensors
    with pytest.raises(CheckpointError, match=f"type {kind.name}, which the gguf package cannot decode"):
        tensors["t"]


def test_metadata_and_vocabulary_are_plain_data(tmp_path: Path) -> None:
    def fill(writer: GGUFWriter) -> None:
        writer.add_context_length(99)
        writer.add_rope_freq_base(5e5)
        writer.add_array("a.list", [1, -2, 3])
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("qwen2")
        writer.add_token_list(["a", "Ġb", "<|end|>"])
        writer.add_token_types([1, 1, 3])
        writer.add_token_merges(["a b", "Ġ b"])
        writer.add_token_scores([0.0, -1.5, -2.0])
        writer.add_eos_token_id(2)
        writer.add_add_bos_token(False)
        writer.add_chat_template("{{ messages }}")
        writer.add_tensor("t", numbers())

    model = open_gguf(written(tmp_path / "x.gguf", fill))
    assert model.architecture == "llama"
    assert model.metadata["llama.context_length"] == 99 and model.metadata["a.list"] == [1, -2, 3]
    found = model.vocabulary
    assert found is not None
    assert (found.model, found.pre, found.tokens, found.types) == ("gpt2", "qwen2", ("a", "Ġb", "<|end|>"), (1, 1, 3))
    assert (found.merges, found.scores) == (("a b", "Ġ b"), (0.0, -1.5, -2.0))
    assert (found.special, found.flags, found.chat_template) == ({"eos": 2}, {"add_bos_token": False}, "{{ messages }}")


def test_a_vocabulary_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    def with_eos(writer: GGUFWriter) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list(["a", "b"])
        writer.add_eos_token_id(2)

    def with_types(writer: GGUFWriter) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list(["a", "b"])
        writer.add_token_types([1])

    for fill, complaint in ((with_eos, "the eos token is 2"), (with_types, "has 2 tokens and 1 of")):
        with pytest.raises(CheckpointError, match=complaint):
            open_gguf(written(tmp_path / "x.gguf", fill))


def raw(
    path: Path, *, key: bytes = b"", table: bytes = b"", counts: tuple[int, int] = (1, 0), version: int = 3
) -> Path:
    """A file by hand: counts of tensors and pairs, the pairs, the table, and 64 bytes of data."""
    head = b"GGUF" + struct.pack("<IQQ", version, *counts) + key + table
    path.write_bytes(head + bytes(-len(head) % 32) + bytes(64))
    return path


def row(name: bytes = b"t", *, shape: tuple[int, ...] = (4, 2), kind: int = 0, offset: int = 0) -> bytes:
    told = struct.pack("<Q", len(name)) + name + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return told + struct.pack("<IQ", kind, offset)


def pair(name: bytes, value: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name + value


ALIGN = b"general.alignment"
LIES: dict[str, tuple[dict[str, Any], str]] = {
    "beyond the end": ({"table": row(offset=64)}, "expected a multiple of 32 .* an end within the file's"),
    "far beyond the end": ({"table": row(offset=(1 << 63) - 32)}, "an end within the file's"),
    "negative offset": ({"table": row(offset=(1 << 64) - 32)}, "an end within the file's"),
    "crooked offset": ({"table": row(offset=4)}, "expected a multiple of 32"),
    "a huge shape": ({"table": row(shape=(1 << 33, 1 << 33))}, "has shape"),
    "too large a shape": ({"table": row(shape=(4, 1 << 20))}, "an end within the file's"),
    "part of a block": ({"table": row(shape=(31, 2), kind=8)}, "Q8_0 needs rows of whole blocks of 32"),
    "an unknown type": ({"table": row(kind=4000)}, "has type 4000, which is not known"),
    "five dimensions": ({"table": row(shape=(1, 1, 1, 1, 1))}, "has 5 dimensions; expected 1 to 4"),
    "a name twice": ({"table": row() + row(offset=32), "counts": (2, 0)}, "stands there twice"),
    "an overlap": ({"table": row(b"a", shape=(4, 4)) + row(b"b", offset=32), "counts": (2, 0)}, "overlaps the tensor"),
    "too many tensors": ({"table": row(), "counts": (1 << 50, 0)}, f"says that it has {1 << 50} tensors; .* too few"),
    "too many pairs": ({"table": row(), "counts": (1, 1 << 60)}, "pairs of metadata; .* too few"),
    "a long key": ({"key": struct.pack("<Q", 1 << 62), "counts": (0, 1)}, f"has {1 << 62} bytes; the file has"),
    "a long text": ({"key": pair(b"k", struct.pack("<IQ", 8, 1 << 40)), "counts": (0, 1)}, "the file has"),
    "a long list": (
        {"key": pair(b"k", struct.pack("<IIQ", 9, 4, 1 << 40)), "counts": (0, 1)},
        "numbers in k; .* too few",
    ),
    "long texts": ({"key": pair(b"k", struct.pack("<IIQ", 9, 8, 1 << 40)), "counts": (0, 1)}, "texts in k; .* too few"),
    "lists in lists": ({"key": pair(b"k", struct.pack("<IIQ", 9, 9, 1)), "counts": (0, 1)}, "is a list of type 9"),
    "an unknown value": ({"key": pair(b"k", struct.pack("<I", 77)), "counts": (0, 1)}, "has a value of type 77"),
    "a key twice": ({"key": pair(b"k", struct.pack("<II", 4, 1)) * 2, "counts": (0, 2)}, "has the key k twice"),
    "no alignment": ({"key": pair(ALIGN, struct.pack("<II", 4, 0)), "counts": (0, 1)}, "expected a power of two"),
    "odd alignment": ({"key": pair(ALIGN, struct.pack("<II", 4, 24)), "counts": (0, 1)}, "expected a power of two"),
    "a later version": ({"table": row(), "version": 4}, "has version 4; known are 2 and 3"),
    "the other byte order": ({"table": row(), "version": 3 << 24}, "little-endian"),
}


def test_a_file_by_hand_is_read(tmp_path: Path) -> None:
    found = open_gguf(raw(tmp_path / "x.gguf", table=row())).tensors
    assert found.info("t").shape == (2, 4)


@pytest.mark.parametrize("lie", LIES)
def test_headers_that_lie_are_refused(tmp_path: Path, lie: str) -> None:
    told, complaint = LIES[lie]
    with pytest.raises(CheckpointError, match=complaint):
        open_gguf(raw(tmp_path / "x.gguf", **told))


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    def fill(writer: GGUFWriter) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list(["a", "b"])
        writer.add_tensor("t", numbers())

    data = written(tmp_path / "x.gguf", fill).read_bytes()
    end = len(data) - len(data) % 4
    for length in [*range(0, 300, 7), end - 4]:
        (tmp_path / "cut.gguf").write_bytes(data[:length])
        with pytest.raises(CheckpointError, match=r"cut\.gguf"):
            open_gguf(tmp_path / "cut.gguf")
    (tmp_path / "cut.gguf").write_bytes(b"GGML" + data[4:])
    with pytest.raises(CheckpointError, match="is no GGUF file"):
        open_gguf(tmp_path / "cut.gguf")


def test_a_file_that_changes_underneath_is_refused(tmp_path: Path) -> None:
    path = with_tensor(tmp_path / "x.gguf", numbers(), Type.F32)
    tensors = open_gguf(path).tensors
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="changed while it was in use"):
        tensors["t"]


def test_a_model_in_several_files_is_opened_by_any_of_them(tmp_path: Path) -> None:
    first, second = (tmp_path / f"m-0000{at}-of-00002.gguf" for at in (1, 2))
    written(first, lambda writer: writer.add_tensor("a", numbers()))
    with pytest.raises(CheckpointError, match=r"lacks m-00002-of-00002\.gguf; the model has 2 files"):
        open_gguf(first)
    written(second, lambda writer: writer.add_tensor("b", numbers()))
    assert list(open_gguf(second).tensors) == ["a", "b"]
    written(second, lambda writer: writer.add_tensor("a", numbers()))
    with pytest.raises(CheckpointError, match="has tensors that an earlier file has, too"):
        open_gguf(first)


def test_the_package_reads_what_we_write(tmp_path: Path) -> None:
    whole = torch.from_numpy(numbers())
    codes = torch.from_numpy(any_bytes(Type.Q6_K))
    weights = {
        "f32": whole,
        "f16": whole.half(),
        "bf16": whole.bfloat16(),
        "q8_0": quantise(whole, "int8"),
        "q4_0": quantise(whole, "int4"),
        "q6_k": Packed(kind="q6_k", codes=codes, scales=None),
        "vector": whole[0, :5],
    }
    metadata = {
        "general.architecture": "llama",
        "llama.context_length": 7,
        "llama.rope.freq_base": 1e4,
        "tokenizer.ggml.tokens": ["a", "ö"],
        "tokenizer.ggml.token_type": [1, 3],
        "tokenizer.ggml.scores": [0.5, -1.0],
        "tokenizer.ggml.add_bos_token": True,
    }
    path = tmp_path / "x.gguf"
    gguf_write.write(path, metadata, in_memory(weights))
    reader = GGUFReader(path)
    assert {name: reader.fields[name].contents() for name in metadata} == metadata
    kinds = {name: reader.fields[name].types[-1].name for name in metadata}
    assert kinds["llama.context_length"] == "UINT32" and kinds["tokenizer.ggml.token_type"] == "INT32"
    assert kinds["llama.rope.freq_base"] == kinds["tokenizer.ggml.scores"] == "FLOAT32"
    for tensor in reader.tensors:
        weight = weights[tensor.name]
        assert tensor.data_offset % 32 == 0
        assert tuple(tensor.shape.tolist()[::-1]) == tuple(weight.shape)
        with np.errstate(all="ignore"):
            expected = widened(weight, torch.float32).numpy()
            found = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(expected.shape)
            np.testing.assert_array_equal(found, expected)
    assert [tensor.tensor_type.name.lower() for tensor in reader.tensors] == [*list(weights)[:-1], "f32"]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (tmp_path / "x.gguf.sha256").read_text() == f"{digest}  x.gguf\n"
    with pytest.raises(CheckpointError, match=r"x\.gguf is there already"):
        gguf_write.write(path, metadata, in_memory(weights))


def test_what_gguf_cannot_say_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="t is kept as nf4, which GGUF files do not have"):
        gguf_write.write(tmp_path / "x.gguf", {}, in_memory({"t": quantise(torch.ones(2, 64), "nf4")}))
    with pytest.raises(UsageError, match="GGUF metadata is text, numbers"):
        gguf_write.write(tmp_path / "x.gguf", {"a": None}, in_memory({}))
    with pytest.raises(UsageError, match="values of several types"):
        gguf_write.write(tmp_path / "x.gguf", {"a": [1, "b"]}, in_memory({}))
    assert not (tmp_path / "x.gguf").exists()


@pytest.mark.parametrize("kind", [Type.Q4_0, Type.Q8_0], ids=lambda kind: kind.name)
def test_blocks_go_through_our_form_and_come_out_as_the_same_bytes(tmp_path: Path, kind: Type) -> None:
    data = any_bytes(kind)
    model = open_gguf(with_tensor(tmp_path / "x.gguf", data, kind))
    gguf_write.write(tmp_path / "y.gguf", {}, model.tensors)
    (tensor,) = GGUFReader(tmp_path / "y.gguf").tensors
    assert tensor.tensor_type == kind and tensor.data.tobytes() == data.tobytes()

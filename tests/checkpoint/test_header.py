"""Headers of safetensors files that lie are refused, whatever they lie about, before a byte of data is believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from riallm.checkpoint import huggingface
from riallm.checkpoint.header import read_header
from riallm.checkpoint.reading import look
from riallm.core.errors import CheckpointError


def file_with(path: Path, header: Any, data: bytes = b"\0" * 24, *, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(begin: int, end: int, shape: list[Any] | None = None, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


GOOD = {"a": entry(0, 8), "b": entry(8, 24), "__metadata__": {"format": "pt"}}

LIES: dict[str, tuple[Any, str]] = {
    "no JSON": (b"{", "has a header that is no JSON"),
    "no object": ([], "has a header that is no object"),
    "a name twice": (b'{"a": 1, "a": 2}', "a name stands there twice"),
    "an overlap": ({"a": entry(0, 16), "b": entry(8, 24)}, "b begins at .* expected no gap and no overlap"),
    "a gap": ({"a": entry(0, 8), "b": entry(12, 24)}, "expected no gap and no overlap"),
    "beyond the end": ({"a": entry(0, 8), "b": entry(8, 4000)}, "it was cut off or replaced"),
    "bytes without a tensor": ({"a": entry(0, 8)}, "it was cut off or replaced"),
    "negative offsets": ({"a": entry(-8, 0)}, "expected numbers that are not negative"),
    "the end first": ({"a": entry(8, 0, [2])}, "expected numbers that are not negative"),
    "a negative shape": ({"a": entry(0, 8, [-2])}, "expected numbers that are not negative"),
    "a broken shape": ({"a": entry(0, 8, [2.0])}, "expected numbers that are not negative"),
    "a huge shape": ({"a": entry(0, 8, [1 << 40, 1 << 40])}, "has 8 bytes; F32 of shape .* has"),
    "another size": ({"a": entry(0, 8, [3])}, r"a has 8 bytes; F32 of shape \(3,\) has 12"),
    "another type": ({"a": entry(0, 8, [2], "F99")}, "has type 'F99'; known are"),
    "no offsets": ({"a": {"dtype": "F32", "shape": [2]}}, "expected dtype, shape and data_offsets"),
    "no description": ({"a": 5}, "expected dtype, shape and data_offsets"),
}


def test_a_true_header_is_read(tmp_path: Path) -> None:
    found = read_header(look(file_with(tmp_path / "x.safetensors", GOOD)))
    assert list(found) == ["a", "b"] and found["b"].shape == (4,) and found["b"].num_bytes == 16


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_named_with_the_file(tmp_path: Path, lie: str) -> None:
    header, complaint = LIES[lie]
    with pytest.raises(CheckpointError, match=complaint) as caught:
        read_header(look(file_with(tmp_path / "x.safetensors", header)))
    assert "x.safetensors" in str(caught.value)


@pytest.mark.parametrize("length", [25 + 1000, 1 << 40, (1 << 64) - 1])
def test_a_header_of_impossible_length_is_not_read(tmp_path: Path, length: int) -> None:
    with pytest.raises(CheckpointError, match=f"says that its header has {length} bytes"):
        read_header(look(file_with(tmp_path / "x.safetensors", GOOD, length=length)))


def test_a_header_over_the_limit_is_refused_though_the_file_has_it(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:
        file.write((100_000_001).to_bytes(8, "little"))
        file.truncate(200_000_000)  # sparse
    with pytest.raises(CheckpointError, match="the limit is 100000000"):
        read_header(look(path))


@pytest.mark.parametrize("num_bytes", [0, 5])
def test_a_stump_is_refused(tmp_path: Path, num_bytes: int) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"\0" * num_bytes)
    with pytest.raises(CheckpointError, match=f"has {num_bytes} bytes; a safetensors file has at least 8"):
        read_header(look(tmp_path / "x.safetensors"))


def hf(folder: Path) -> Path:
    """A folder of Hugging Face's form in two files."""
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "x"}')
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    save_file({"a": torch.ones(2)}, folder / names[0])
    save_file({"b": torch.ones(3).half()}, folder / names[1])
    where = {"a": names[0], "b": names[1]}
    (folder / huggingface.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder


def test_a_model_in_several_files_is_read(tmp_path: Path) -> None:
    stored = huggingface.read(hf(tmp_path / "m"))
    assert [stored.tensors.info(name).kept for name in ("a", "b")] == ["float32", "float16"]
    weight = stored.tensors["b"]
    assert isinstance(weight, torch.Tensor) and torch.equal(weight, torch.ones(3).half())


def test_an_index_that_lies_is_refused(tmp_path: Path) -> None:
    folder = hf(tmp_path / "m")
    first, second = sorted(path.name for path in folder.glob("*.safetensors"))

    def index(where: Any) -> None:
        (folder / huggingface.INDEX).write_text(json.dumps({"weight_map": where}))

    for where, complaint in (
        ({"a": first, "ghost": second}, "has no tensor ghost"),
        ({"a": first, "b": "model-00003-of-00003.safetensors"}, "lacks model-00003-of-00003.safetensors"),
        ({"a": "../x.safetensors"}, r"names '\.\./x\.safetensors'; expected safetensors files of the same folder"),
        ({"a": "model.bin"}, "expected safetensors files of the same folder"),
        ({"a": 5}, "has no weight_map"),
        ([], "has no weight_map"),
    ):
        index(where)
        with pytest.raises(CheckpointError, match=complaint):
            huggingface.read(folder)
    index({"a": first, "b": second})
    save_file({"a": torch.ones(2), "b": torch.ones(3)}, folder / second)
    with pytest.raises(CheckpointError, match="a lies both in"):
        huggingface.read(folder)
    (folder / second).write_bytes((folder / second).read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=f"{second} has .* bytes, its header says .*: it was cut off"):
        huggingface.read(folder)


def test_pickles_are_refused_and_so_is_what_another_program_quantised(tmp_path: Path) -> None:
    folder = hf(tmp_path / "m")
    for path in folder.glob("model*"):
        path.unlink()
    with pytest.raises(CheckpointError, match=r"has neither model\.safetensors nor model\.safetensors\.index\.json"):
        huggingface.read(folder)
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin, a pickle, which runs code when it is read"):
        huggingface.read(folder)
    save_file({"a.qweight": torch.ones(2, dtype=torch.int32)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"a\.qweight has type int32; .* get the unquantised one, or a GGUF file"):
        huggingface.read(folder)
    (folder / "config.json").write_text("[1")
    with pytest.raises(CheckpointError, match=r"config.json is no complete JSON"):
        huggingface.read(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        huggingface.read(folder)

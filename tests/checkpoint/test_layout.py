"""The files of a split model: valid safetensors, data at a page, order of use, and where the manifest says all lies."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from riallm.checkpoint import folder
from riallm.checkpoint.layout import file_of
from riallm.checkpoint.tensors import Info, Weight, in_memory, packed_as
from riallm.core.errors import CheckpointError
from riallm.quant.packed import KINDS, Packed, dequantise, quantise

FILES = ["embed", "layer_0", "layer_1", "layer_10", "final_norm", "lm_head", "rest"]


def weights() -> dict[str, Weight]:
    """Few tensors of every place and way, in no order."""
    torch.manual_seed(0)
    k_quants: dict[str, Weight] = {
        "layers.0.mlp.down_proj.weight": Packed(
            kind="q4_k", codes=torch.randint(0, 256, (3, 144), dtype=torch.uint8), scales=None
        ),
        "layers.0.mlp.up_proj.weight": Packed(
            kind="q6_k", codes=torch.randint(0, 256, (3, 210), dtype=torch.uint8), scales=None
        ),
    }
    return {
        "extra.table": torch.randn(3, 5),
        "lm_head.weight": quantise(torch.randn(8, 128), "int8"),
        "norm.weight": torch.randn(128),
        "layers.10.self_attn.q_proj.weight": quantise(torch.randn(8, 128), "nf4"),
        "layers.1.mlp.gate_proj.weight": torch.randn(8, 128).bfloat16(),
        "layers.1.self_attn.q_proj.bias": torch.randn(7).half(),
        "layers.1.input_layernorm.weight": torch.randn(128),
        "layers.1.alpha": torch.tensor(0.5),
        **k_quants,
        "layers.0.self_attn.q_proj.weight": quantise(torch.randn(8, 128), "int4"),
        "embed_tokens.weight": torch.randn(9, 128),
    }


def same(left: Weight, right: Weight) -> bool:
    """Bit for bit, and kept in the same way."""
    if isinstance(left, Packed) and isinstance(right, Packed):
        scales = left.scales is right.scales or (
            left.scales is not None and right.scales is not None and torch.equal(left.scales, right.scales)
        )
        return left.kind == right.kind and torch.equal(left.codes, right.codes) and scales
    return (
        isinstance(left, torch.Tensor)
        and isinstance(right, torch.Tensor)
        and left.dtype == right.dtype
        and torch.equal(left, right)
    )


@pytest.fixture
def written(tmp_path: Path) -> Path:
    folder.write(tmp_path / "m", {"model_type": "x"}, weights(), files={"tokenizer.json": b"{}"})
    return tmp_path / "m"


def test_every_way_comes_back_as_it_was(written: Path) -> None:
    stored = folder.read(written)
    assert set(stored.tensors) == set(weights())
    for name, weight in weights().items():
        assert same(stored.tensors[name], weight), name
        assert stored.tensors.info(name).num_bytes == (
            weight.num_bytes if isinstance(weight, Packed) else weight.nbytes
        )
    assert stored.config == {"model_type": "x"} and stored.files == {"tokenizer.json": b"{}"}
    with pytest.raises(KeyError):
        stored.tensors["nothing"]


def test_files_are_as_the_document_names_them_and_data_begins_at_a_page(written: Path) -> None:
    assert sorted(path.stem for path in written.glob("*.safetensors")) == sorted(FILES)
    for name in FILES:
        path = written / f"{name}.safetensors"
        length = int.from_bytes(path.read_bytes()[:8], "little")
        assert (8 + length) % 4096 == 0
        with safe_open(path, "pt") as file:  # the library's own reader
            for key in file.keys():  # noqa: SIM118
                file.get_tensor(key)


def test_the_manifest_says_where_the_bytes_lie(written: Path) -> None:
    manifest = json.loads((written / "manifest.json").read_text())
    assert manifest["format"] == 2
    told = manifest["tensors"]["layers.0.self_attn.q_proj.weight"]
    assert (told["file"], told["kept"], told["shape"]) == ("layer_0.safetensors", "int4", [8, 128])
    offset, size = told["parts"]["codes"]
    weight = weights()["layers.0.self_attn.q_proj.weight"]
    assert isinstance(weight, Packed)
    assert (written / told["file"]).read_bytes()[offset : offset + size] == weight.codes.numpy().tobytes()


def test_tensors_stand_in_the_order_of_use_and_at_places_for_their_type(written: Path) -> None:
    stored = folder.read(written)
    first = {name: min(part.offset for part in place.parts.values()) for name, place in stored.places.items()}
    inside = sorted((name for name in first if name.startswith("layers.1.")), key=lambda name: first[name])
    assert inside == [
        "layers.1.input_layernorm.weight",
        "layers.1.mlp.gate_proj.weight",
        "layers.1.alpha",  # those of odd length are last, the widest type first
        "layers.1.self_attn.q_proj.bias",
    ]
    for place in stored.places.values():
        assert all(part.offset % part.dtype.itemsize == 0 for part in place.parts.values())


def test_names_that_nobody_planned_go_to_rest() -> None:
    assert file_of("layers.7.x") == "layer_7.safetensors"
    assert [file_of(name) for name in ("layers.x.y", "norms.weight", "memory.slots")] == ["rest.safetensors"] * 3


def test_a_model_that_changes_underneath_is_refused(written: Path) -> None:
    stored = folder.read(written)
    path = written / "embed.safetensors"
    data = path.read_bytes()
    os.utime(path, ns=(1, 1))
    with pytest.raises(
        CheckpointError, match=r"embed\.safetensors changed while it was in use: time 1, .*load the model"
    ):
        stored.tensors["embed_tokens.weight"]
    stored = folder.read(written)
    (written / "copy").write_bytes(data)
    os.utime(written / "copy", ns=(1, 1))
    (written / "copy").rename(path)
    with pytest.raises(CheckpointError, match="changed while it was in use: inode"):
        stored.tensors["embed_tokens.weight"]
    path.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        stored.tensors["embed_tokens.weight"]
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="changed while it was in use"):
        stored.tensors["embed_tokens.weight"]
    assert same(stored.tensors["norm.weight"], weights()["norm.weight"])


def test_opening_reads_no_tensor_and_verify_reads_all(written: Path) -> None:
    path = written / "embed.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    folder.read(written)
    heard: list[tuple[str, int, int]] = []
    with pytest.raises(CheckpointError, match=r"embed\.safetensors is damaged: its sha256 is"):
        folder.verify(written, lambda *told: heard.append(told))
    data[-1] ^= 1
    path.write_bytes(data)
    heard.clear()
    folder.verify(written, lambda *told: heard.append(told))
    assert (
        heard[-1][1]
        == heard[-1][2]
        == sum(one.stat().st_size for one in written.iterdir()) - ((written / "manifest.json").stat().st_size)
    )


LIES = {
    "format 1": (lambda told: told.update(format=1), "has format 1; this version reads format 2"),
    "another kind": (lambda told: _embed(told).update(kept="int3"), "no way to keep a tensor is called 'int3'"),
    "another type": (lambda told: _embed(told).update(kept="float16"), r"has torch.float32 of shape \(9, 128\)"),
    "another shape": (lambda told: _embed(told).update(shape=[9, 64]), r"says torch.float32 of shape \(9, 64\)"),
    "negative shape": (lambda told: _embed(told).update(shape=[-9, 128]), "expected numbers that are not negative"),
    "no list": (lambda told: _embed(told).update(shape=7), "expected file, kept, parts"),
    "another place": (
        lambda told: _embed(told).update(parts={"plain": [4097, 4608]}),
        r"lies at 4096 with 4608 bytes, manifest\.json says \(4097, 4608\)",
    ),
    "no such tensor": (
        lambda told: told["tensors"].update(ghost=dict(_embed(told))),
        "has no tensor ghost; manifest.json lists it",
    ),
    "another file": (lambda told: _embed(told).update(file="../x"), "lists files that cannot be: ../x"),
    "a path outside": (
        lambda told: told["files"].update({"../x": {"bytes": 1, "sha256": "0"}}),
        r"lists files that cannot be: \.\./x",
    ),
    "no files": (lambda told: told.pop("files"), "holds no model of ours"),
    "no configuration": (lambda told: told["files"].pop("config.json"), "no config.json, or no hash"),
}


def _embed(told: dict[str, object]) -> dict[str, object]:
    return told["tensors"]["embed_tokens.weight"]  # type: ignore[index,no-any-return]


@pytest.mark.parametrize("lie", LIES)
def test_a_manifest_that_lies_is_refused(written: Path, lie: str) -> None:
    change, complaint = LIES[lie]
    path = written / "manifest.json"
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))
    with pytest.raises(CheckpointError, match=complaint):
        folder.read(written)


def test_files_that_a_model_needs_are_not_replaced(written: Path) -> None:
    folder.add(written, {"README.md": b"card", "tokenizer.json": b"[]"})
    folder.verify(written)
    assert folder.read(written).files == {"README.md": b"card", "tokenizer.json": b"[]"}
    for name in ("embed.safetensors", "config.json", "manifest.json"):
        with pytest.raises(CheckpointError, match=f"{name} is part of the model"):
            folder.add(written, {name: b""})
        with pytest.raises(CheckpointError, match=f"{name} is written by the model itself"):
            folder.write(written.parent / "other", {}, weights(), files={name: b""})


@pytest.mark.parametrize("kind", ["int4", "int8", "nf4"])
def test_a_matrix_quantised_in_pieces_is_the_matrix_quantised_at_once(kind: str) -> None:
    from riallm.checkpoint import tensors

    weight = torch.randn(2 * tensors.CHUNK_ELEMENTS // 1024 + 3, 1024)
    made = tensors.keep(weight, kind)
    whole = quantise(weight, tensors.kind_named(kind))
    assert same(made, whole)
    assert torch.equal(tensors.widened(made, torch.float32), dequantise(whole))


def test_what_is_not_worth_it_stays_plain() -> None:
    kept = in_memory({"a": torch.randn(64, 64), "b": torch.randn(2, 64), "c": torch.randn(64)})
    told = kept.kept_as(packed_as("int4", plain="bfloat16"))
    assert [told.info(name).kept for name in "abc"] == ["int4", "bfloat16", "float32"]
    assert [told.info(name).kept for name in "abc"] == [_kept(told[name]) for name in "abc"]
    as_is = kept.kept_as(packed_as("nf4"))
    assert [as_is.info(name).kept for name in "abc"] == ["nf4", "float32", "float32"]
    assert set(KINDS) >= {"int4", "int8", "nf4"}


def _kept(weight: Weight) -> str:
    from riallm.checkpoint.tensors import info_of

    return info_of(weight).kept


def test_sizes_are_known_before_anything_is_made() -> None:
    for kind in ("int4", "int8", "nf4"):
        made = quantise(torch.randn(4, 256), kind)  # type: ignore[arg-type]
        assert Info(kept=kind, shape=(4, 256)).num_bytes == made.num_bytes

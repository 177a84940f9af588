"""A model in a folder: it comes back, and whatever is wrong with it is named."""

from __future__ import annotations

import dataclasses
import json
import resource
import signal
from pathlib import Path

import pytest
import torch

from riallm.core.errors import CheckpointError
from riallm.models.load import load_ria, save_ria
from riallm.models.ria import RIA
from riallm.models.zoo import nano
from riallm.nn.meta import TokenMeta
from riallm.quant.blocks import Bits

CONFIG = dataclasses.replace(nano(hidden=256, layers=2, inner=512, vocab=97, context=32), zero_output=False)


@pytest.fixture(scope="module")
def model() -> RIA:
    made = RIA(CONFIG)
    made.initialise(seed=0)
    return made.eval()


def logits(model: RIA) -> torch.Tensor:
    tokens = torch.arange(20)[None]
    with torch.inference_mode():
        return model.logits(model(tokens, TokenMeta.plain(1, 20)).hidden)


@pytest.mark.parametrize(("bits", "difference"), [(None, 0.02), (8, 0.03), (4, 0.5)])
def test_a_model_comes_back(model: RIA, tmp_path: Path, bits: Bits | None, difference: float) -> None:
    save_ria(model, tmp_path / "nano", bits=bits, files={"tokenizer.json": b"{}"})
    again = load_ria(tmp_path / "nano")
    assert again.config == model.config
    scale = logits(model).std()
    assert float((logits(again) - logits(model)).abs().mean() / scale) < difference
    written = json.loads((tmp_path / "nano/config.json").read_text())
    assert written["num_key_value_heads"] == model.config.num_key_value_heads
    with pytest.raises(CheckpointError, match="is there already"):
        save_ria(model, tmp_path / "nano", bits=bits)


def test_fewer_bits_take_less_room(model: RIA, tmp_path: Path) -> None:
    sizes = []
    for bits in (None, 8, 4):
        save_ria(model, tmp_path / str(bits), bits=bits)  # type: ignore[arg-type]
        sizes.append((tmp_path / str(bits) / "layer_1.safetensors").stat().st_size)
    assert sizes[0] > 1.8 * sizes[1] > 1.8 * 1.7 * sizes[2]


@pytest.mark.parametrize("name", ["layer_1.safetensors", "config.json", "tokenizer.json"])
def test_damage_is_named_with_both_hashes(model: RIA, tmp_path: Path, name: str) -> None:
    save_ria(model, tmp_path / "nano", bits=8, files={"tokenizer.json": b"{}"})
    path = tmp_path / "nano" / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=rf"{name} is damaged: its sha256 is [0-9a-f]{{64}}, manifest.json says"):
        load_ria(tmp_path / "nano")
    path.write_bytes(data[:-1])
    with pytest.raises(CheckpointError, match=rf"{name} has {len(data) - 1} bytes, manifest.json says {len(data)}"):
        load_ria(tmp_path / "nano")
    path.unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        load_ria(tmp_path / "nano")


def test_foreign_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no model of ours"):
        load_ria(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 9, "files": {}}')
    with pytest.raises(CheckpointError, match="has format 9; this version reads format 2"):
        load_ria(tmp_path)


def test_weights_that_do_not_fit_are_refused(model: RIA, tmp_path: Path) -> None:
    from riallm.checkpoint import folder as folders
    from riallm.core.config import to_json

    tensors = {name: p.detach() for name, p in model.named_parameters()}
    other = {"model_type": "ria", **to_json(dataclasses.replace(CONFIG, vocab_size=98))}
    folders.write(tmp_path / "a", other, tensors)
    with pytest.raises(CheckpointError, match=r"embed_tokens.weight has shape \(97, 256\), its configuration says"):
        load_ria(tmp_path / "a")
    folders.write(tmp_path / "b", {"model_type": "ria", **to_json(CONFIG)}, {"x": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="unknown x"):
        load_ria(tmp_path / "b")
    folders.write(tmp_path / "c", {"model_type": "rxt"}, tensors)
    with pytest.raises(CheckpointError, match="model_type 'rxt'; expected 'ria'"):
        load_ria(tmp_path / "c")


def test_a_full_disk_leaves_nothing(model: RIA, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(CheckpointError, match="could not be written"):
            save_ria(model, tmp_path / "nano", bits=8)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
    assert list(tmp_path.iterdir()) == []

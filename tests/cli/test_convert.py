"""`riallm convert` and `riallm verify` from the command line, on a tiny model with its tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from riallm.__main__ import main
from riallm.checkpoint import folder, huggingface
from riallm.checkpoint.tensors import in_memory
from riallm.models import foreign
from riallm.models.foreign_config import to_hugging_face
from riallm.models.llama import LlamaConfig

CONFIG = LlamaConfig(
    vocab_size=260,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=32,
    max_position_embeddings=64,
    attention_bias=True,
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder as Hugging Face's programs write it."""
    torch.manual_seed(0)
    weights = {
        name if name.startswith("lm_head") else f"model.{name}": torch.randn(shape).bfloat16()
        for name, shape in foreign.shapes(CONFIG).items()
    }
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: at for at, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>"])
    files = {
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": b'{"eos_token": "<|end|>"}',
        "generation_config.json": b'{"eos_token_id": 256}',
    }
    huggingface.write(tmp_path / "hf", to_hugging_face(CONFIG, dtype="bfloat16"), in_memory(weights), files=files)
    return tmp_path / "hf"


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_there_and_back_with_the_tokenizer(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "convert", source, tmp_path / "split", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["form"] == "split" and told["kept"] == {"bfloat16": told["num_tensors"]}
    assert told["num_tensors"] == len(foreign.shapes(CONFIG))
    assert set(folder.read(tmp_path / "split").files) == {
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
    }
    code, out, _ = run(capsys, "convert", tmp_path / "split", tmp_path / "m.gguf", "--to", "gguf", "--dtype", "f16")
    assert code == 0 and "m.gguf: " in out and "float16" in out
    code, out, _ = run(capsys, "convert", tmp_path / "m.gguf", tmp_path / "back", "--to", "hf", "--dtype", "bf16")
    assert code == 0
    text = "def f(x):\n    return x  # ü <|end|>"
    before, after = (Tokenizer.from_file(str(place / "tokenizer.json")) for place in (source, tmp_path / "back"))
    assert before.encode(text).ids == after.encode(text).ids
    told = json.loads((tmp_path / "back" / "config.json").read_text())
    assert told["model_type"] == "qwen2" and told["eos_token_id"] == 256
    first, last = (foreign.open_model(place).tensors for place in (source, tmp_path / "back"))
    for name in first:
        left, right = first[name], last[name]
        assert isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor)
        torch.testing.assert_close(left.float(), right.float(), rtol=2**-7, atol=1e-6)


def test_verify_says_what_it_compared(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "verify", source, "--json")
    told = json.loads(out)
    assert code == 0 and told["form"] == "hf" and told["num_hashed"] == 5
    (source / "SHA256SUMS").rename(tmp_path / "sums")
    code, out, _ = run(capsys, "verify", source)
    assert code == 0 and "there are no hashes to compare" in out
    (tmp_path / "sums").rename(source / "SHA256SUMS")
    assert run(capsys, "convert", source, tmp_path / "m", "--compression", "4bit")[0] == 0
    assert run(capsys, "convert", source, tmp_path / "m.gguf", "--to", "gguf", "--compression", "q8_0")[0] == 0
    for path, victim in (
        (source, source / "model.safetensors"),
        (tmp_path / "m", tmp_path / "m" / "layer_1.safetensors"),
        (tmp_path / "m.gguf", tmp_path / "m.gguf"),
    ):
        code, out, _ = run(capsys, "verify", path)
        assert code == 0 and "every hash is right" in out
        data = bytearray(victim.read_bytes())
        data[-100] ^= 1
        victim.write_bytes(data)
        code, _, err = run(capsys, "verify", path)
        assert code == 2 and f"{victim.name} is damaged: its sha256 is" in err
        victim.write_bytes(data[:-100])
        code, _, err = run(capsys, "verify", path)
        assert code == 2 and victim.name in err
    assert run(capsys, "verify", tmp_path / "nothing")[0] == 2
    (source / "SHA256SUMS").write_text("0 ../../x\n")
    assert "expected a hash and the name of a file" in run(capsys, "verify", source)[2]


def test_what_cannot_be_done_is_said(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").mkdir()
    assert "there is there already" in run(capsys, "convert", source, tmp_path / "there")[2]
    code, _, err = run(capsys, "convert", tmp_path / "nothing", tmp_path / "x")
    assert code == 2 and "expected a model folder or a .gguf file" in err
    code, _, err = run(capsys, "convert", source, tmp_path / "x", "--to", "hf", "--compression", "8bit")
    assert code == 2 and "needs another form" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "there"]

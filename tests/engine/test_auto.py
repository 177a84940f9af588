"""The Python surface: models by name and path, logits, answers, the profiler, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import riallm
from riallm.core.errors import CheckpointError, UsageError
from riallm.engine.auto import LocalModel
from riallm.nn import program
from riallm.testing.tiny import write_tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("models") / "tiny", context=128)


def opened(place: Path | str, **options: object) -> LocalModel:
    made = riallm.AutoModel.from_pretrained(place, options=riallm.ModelOptions(**options))
    assert isinstance(made, LocalModel)
    return made


def test_an_answer_is_what_its_logits_say(folder: Path) -> None:
    model = opened(folder, dtype="float32")
    ids = model.tokenizer.encode("def wrap(text):\n")
    logits = model.logits(ids)
    assert logits.shape == (len(ids), 600) and logits.dtype == torch.float32
    torch.testing.assert_close(model.logits(ids, last=2), logits[-2:])
    found = model.generate("def wrap(text):\n", max_new_tokens=5)
    assert found.ids[0] == int(logits[-1].argmax()) and len(found.ids) == 5 and found.finish_reason == "length"
    assert found.text == model.tokenizer.decode_bytes(found.ids).decode()
    assert found.timings.prompt_tokens == len(ids)
    drawn = [model.generate(ids, max_new_tokens=9, temperature=1.0, top_p=0.9, seed=seed).ids for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    model.close()


def test_the_profiler_says_where_the_time_goes(folder: Path) -> None:
    model = opened(folder, profiling_mode=True)
    model.logits([1, 2, 3])
    model.logits([1, 2, 3])
    told = model.profiler.summary()
    assert told["passes"] == 2
    assert {"embed_tokens", "self_attn", "mlp", "norm", "other"} == set(told["units"])
    assert told["units"]["mlp"]["calls"] == 4
    assert sum(unit["share"] for unit in told["units"].values()) == pytest.approx(1.0)
    with pytest.raises(UsageError, match="profiling_mode=True"):
        _ = opened(folder).profiler


def test_the_profiler_takes_a_compiled_call_apart(folder: Path) -> None:
    if not program.available():
        pytest.skip("there is no C++ compiler here")
    model = opened(folder, profiling_mode=True, compression="4bit")
    model.generate([1, 2, 3], max_new_tokens=2)
    told = model.profiler.summary()
    assert told["passes"] == 2
    assert {"embed_tokens", "gate, up", "attend", "other"} < set(told["units"]) and "mlp" not in told["units"]
    assert told["units"]["gate, up"]["calls"] == 4 and told["units"]["gate, up"]["gb_a_second"] > 0
    assert sum(unit["share"] for unit in told["units"].values()) == pytest.approx(1.0)
    model.close()


def test_a_shape_without_weights_says_so() -> None:
    with pytest.raises(UsageError, match=r"nobody has weights of ria-1b: .* --random-weights"):
        opened("ria-1b")
    with pytest.raises(UsageError, match=r"no model 'ria-9b': .* ria-1b"):
        opened("ria-9b")
    with pytest.raises(UsageError, match="no model 'ria-9b'"):
        opened("ria-9b", random_weights=True)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"compression": "2bit"}, "compression is '2bit'; there are none, 8bit, 4bit, nf4"),
        ({"dtype": "float16"}, "dtype is 'float16'"),
        ({"max_seq_len": 129}, "max_seq_len is 129; tiny was made for 1 to 128"),
        ({"device": "cuda:9"}, "device 'cuda:9' cannot be used here"),
        ({"device": "toaster"}, "device 'toaster' cannot be used here"),
    ],
)
def test_options_are_honoured_or_refused(folder: Path, options: dict[str, object], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        opened(folder, **options)
    with pytest.raises(UsageError, match="takes 1 to 100 tokens, got 101"):
        opened(folder, max_seq_len=100).logits([1] * 101)


def test_a_tokenizer_of_another_model_is_seen(folder: Path, tmp_path: Path) -> None:
    from riallm.checkpoint import folder as folders

    other = write_tiny(tmp_path / "other", context=64)
    stored = folders.read(folder)
    small = {**stored.config, "vocab_size": 599}
    tensors = {name: stored.tensors[name] for name in stored.tensors}
    embedding = tensors["embed_tokens.weight"]
    assert not isinstance(embedding, torch.Tensor)
    cut = torch.zeros(599, 128)
    folders.write(tmp_path / "less", small, {**tensors, "embed_tokens.weight": cut}, files=stored.files)
    with pytest.raises(CheckpointError, match="its tokenizer has 600 tokens, its configuration 599"):
        opened(tmp_path / "less")
    assert opened(other).context == 64


def test_there_is_nothing_else_to_import() -> None:
    with pytest.raises(AttributeError, match="no attribute 'AutoModal'; there are AutoModel"):
        _ = riallm.AutoModal

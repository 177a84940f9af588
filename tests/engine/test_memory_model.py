"""Opening a model with a memory by name or path, as any other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from engines import answer, ids_of

from riallm.cli.opened import served
from riallm.core import shipped
from riallm.core.errors import UsageError
from riallm.engine import auto
from riallm.engine.auto import ModelOptions
from riallm.engine.local import EngineOptions
from riallm.engine.memory_model import MemoryModel, keeps_memory
from riallm.engine.request import Request, Sampling
from riallm.models.load import TOKENIZER
from riallm.testing.tiny import write_tiny
from riallm.testing.tiny_rxt import write_tiny_rxt

PROMPT = (1, 2, 3)
FLOAT = ModelOptions(dtype="float32")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where shipped models lie, with one of each kind."""
    home = tmp_path_factory.mktemp("weights")
    write_tiny_rxt(home / "rxt-nano")
    write_tiny(home / "ria-nano")
    with pytest.MonkeyPatch.context() as patch:
        for module in (auto, shipped):
            patch.setattr(module, "home", lambda: home)
        yield home


def said(model: MemoryModel) -> list[int]:
    asked = Request(ids=PROMPT, max_tokens=5, sampling=Sampling(temperature=0.0), ends=model.tokenizer.ends)
    return ids_of(answer(model.engine.submit(asked)))


def test_a_name_and_a_folder_open_the_same(weights: Path) -> None:
    assert shipped.names() == ["ria-nano", "rxt-nano"]
    assert keeps_memory("rxt-nano") and keeps_memory(weights / "rxt-nano") and not keeps_memory("ria-nano")
    named, placed = MemoryModel("rxt-nano", FLOAT), MemoryModel(weights / "rxt-nano", FLOAT)
    try:
        assert (named.name, placed.name, named.context) == ("rxt-nano", "rxt-nano", 64)
        assert said(named) == said(placed)
        with named.session() as session:
            alone = list(session.ask(PROMPT, temperature=0.0, max_tokens=5))
        assert said(named) == [token for token in alone if token not in named.tokenizer.ends]
        assert named.tokenizer.fim is None and (weights / "rxt-nano" / TOKENIZER).is_file()
    finally:
        named.close()
        placed.close()


def test_what_it_says_of_itself_chooses_how_it_is_served(weights: Path) -> None:
    model = MemoryModel("rxt-nano", FLOAT)
    try:
        made = served(model)
        assert made.memories is not None and made.memories.engine is model.engine
        assert (made.embeds, made.prompts.tools, made.note) == (False, False, None)
        made.memories.close()
    finally:
        model.close()


def test_options_are_honoured(weights: Path) -> None:
    model = MemoryModel(
        "rxt-nano",
        ModelOptions(dtype="bfloat16", max_seq_len=10),
        engine_options=EngineOptions(kv_bytes=1 << 16),
    )
    try:
        assert model.engine.new.result().slots.dtype == torch.bfloat16
        assert model.engine.max_running == (1 << 16) // model.engine.conversation_bytes
        with pytest.raises(UsageError, match="11 of 10"):
            model.engine.submit(Request(ids=PROMPT, max_tokens=8))
        assert len(said(model)) == 5
    finally:
        model.close()
    with pytest.raises(UsageError, match="device 'nothing'"):
        MemoryModel("rxt-nano", ModelOptions(dtype="float32", device="nothing"))
    with pytest.raises(UsageError, match="profiling_mode"):
        MemoryModel("rxt-nano", ModelOptions(dtype="float32", profiling_mode=True))
    with pytest.raises(UsageError, match="from Python riallm"):
        auto.AutoModel.from_pretrained("rxt-nano")

"""Blocks as one compiled call: what the modules compute, and the same bits however a text is cut and computed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from riallm.models import resident
from riallm.models.compiled import compile_blocks, program_of
from riallm.models.decoder import Decoder
from riallm.models.llama import LlamaConfig
from riallm.models.ria import RIAConfig
from riallm.nn import program
from riallm.nn.paged import PagedState, PageStore, Table, row_of
from riallm.quant.compiled import PATHS, kernels
from riallm.quant.packed import Kind

SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 512,
}
CONFIGS = {
    "llama": LlamaConfig(**SIZES),
    "biases": LlamaConfig(**SIZES, attention_bias=True, output_bias=True),
    "normed heads": LlamaConfig(**SIZES, qk_norm=True, tie_word_embeddings=True),
    "apart": LlamaConfig(
        **{**SIZES, "num_attention_heads": 8, "head_dim": 24}, attention_bias=True
    ),  # keys and values that do not fill whole panels
    "ria": RIAConfig(**SIZES, local_window=16, file_window=40),
    "ria, all options": RIAConfig(
        **SIZES,
        activation="relu2",
        qk_norm=True,
        norm_gain=False,
        skip_scalars=True,
        softcap=15.0,
        local_window=16,
        file_window=40,
    ),
    "one path": RIAConfig(**SIZES, dual_path_rank=0, file_bias=False, local_window=None, file_window=None),
}
NUM = 90


@pytest.fixture(autouse=True)
def _compiled() -> None:
    if not program.available():
        pytest.skip("there is no C++ compiler here")


def made(name: str, kind: Kind = "nf4", dtype: str = "float32") -> Decoder:
    model = resident.random_of(CONFIGS[name], name, kind=kind, dtype=dtype).model
    draw = torch.Generator().manual_seed(1)
    for full, parameter in model.named_parameters():
        if full.endswith(("alpha", "bias")):
            parameter.data.normal_(generator=draw)
        if full.endswith("norm.weight"):
            parameter.data.uniform_(0.5, 2.0, generator=draw)
        if full.endswith("skips"):
            parameter.data.copy_(torch.tensor([0.9, 0.3]))
    return model


class Text:
    """A text of two files, the second of which imports the first, in pages of a store of its own."""

    def __init__(self, model: Decoder, *, int8: bool = False) -> None:
        sizes = model.sizes
        self.model, self.num = model, 0
        self.store = PageStore(
            num_pages=12,
            num_layers=sizes.num_hidden_layers,
            num_kv_heads=sizes.num_key_value_heads,
            head_dim=sizes.head_dim,
            dtype=model.dtype,
            int8=int8,
        )
        draw = torch.Generator().manual_seed(2)
        self.ids: list[int] = torch.randint(0, sizes.vocab_size, (NUM,), generator=draw).tolist()
        self.files = [0] * 40 + [1] * (NUM - 40)
        self.table = Table(pages=(3, 7), num_tokens=0, relations=torch.tensor([[1, 0], [2, 1]]))

    @torch.inference_mode()
    def read(self, *cuts: int) -> Tensor:
        """(sum of cuts, D) in float32: hidden states of the next tokens."""
        found = []
        for size in cuts:
            first, last = self.num, self.num + size
            meta = row_of([self.table], [self.files[first:last]])
            out = self.model(
                torch.tensor([self.ids[first:last]]), meta, PagedState(store=self.store, tables=(self.table,))
            )
            found.append(out.hidden[0].float())
            (self.table,) = out.state.tables
            self.num = last
        return torch.cat(found)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("int8", [False, True])
def test_it_computes_what_the_modules_compute(name: str, int8: bool) -> None:
    model = made(name)
    plain, kept = Text(model), Text(model, int8=int8)
    wanted = plain.read(NUM) if not int8 else kept.read(NUM)
    compile_blocks(model)
    assert model.program is not None
    text = Text(model, int8=int8)
    found = text.read(NUM)
    # Keys in 8 bits may be rounded to the number beside.
    torch.testing.assert_close(found, wanted, atol=2e-2 if int8 else 1e-4, rtol=1e-4)
    if not int8:
        for layer in range(3):
            for mine, own in zip(text.store.layer(layer)[:2], plain.store.layer(layer)[:2], strict=True):
                torch.testing.assert_close(mine, own, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["int4", "int8"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rounded_activations_stay_near(kind: Kind, dtype: str) -> None:
    model = made("llama", kind, dtype)
    wanted = Text(model).read(NUM)
    compile_blocks(model)
    far = (Text(model).read(NUM) - wanted).square().mean().sqrt() / wanted.std()
    assert far < (0.01 if dtype == "float32" else 0.05)


@pytest.mark.parametrize("name", ["biases", "ria, all options"])
@pytest.mark.parametrize("kind", ["int4", "nf4"])
@pytest.mark.parametrize("int8", [False, True])
def test_bits_do_not_depend_on_cuts_threads_or_instruction_set(
    name: str, kind: Kind, int8: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = made(name, kind)
    compile_blocks(model)
    whole = Text(model, int8=int8).read(NUM)
    for cuts in ([1] * 5 + [64, 21], [63, 2, 25]):
        assert torch.equal(Text(model, int8=int8).read(*cuts), whole)
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if threads > 1 else 2)
    try:
        assert torch.equal(Text(model, int8=int8).read(NUM), whole)
    finally:
        torch.set_num_threads(threads)
    best = kernels()
    for number, path in enumerate(PATHS[: best.number]):
        monkeypatch.setattr("riallm.nn.program.kernels", lambda path=path: replace(best, path=path))
        model.program = program_of(model)
        assert model.program is not None and model.program.path == number
        assert torch.equal(Text(model, int8=int8).read(NUM), whole)


def test_bits_do_not_depend_on_the_company() -> None:
    model = made("ria", "int4")
    compile_blocks(model)
    alone = Text(model)
    alone.read(50)
    wanted = alone.read(1)
    text = Text(model)
    text.read(50)
    other = Table(pages=(5,), num_tokens=0, relations=torch.ones(1, 1, dtype=torch.int64))
    meta = row_of([other, text.table], [[0] * 30, text.files[50:51]])
    state = PagedState(store=text.store, tables=(other, text.table))
    with torch.inference_mode():
        out = model(torch.tensor([[*range(30), text.ids[50]]]), meta, state)
        assert torch.equal(out.hidden[0, 30:], wanted)


def test_the_memory_of_joined_matrices_is_that_of_the_modules() -> None:
    model = made("llama", "int4")
    compile_blocks(model)
    assert model.program is not None
    (together,) = [op for op in model.program.ops if op.name == "gate, up"][:1]
    mlp = model.get_submodule("layers.0.mlp")
    assert together.weight.codes.data_ptr() == mlp.gate_proj.prepared.codes.data_ptr()
    assert together.weight.codes.nbytes == mlp.gate_proj.prepared.codes.nbytes + mlp.up_proj.prepared.codes.nbytes


def test_time_is_told_by_what_took_it() -> None:
    model = made("ria", "int4")
    compile_blocks(model)
    assert model.program is not None
    Text(model).read(NUM)
    spent = model.program.spent()
    assert set(spent) == {
        *("norm", "q, k, v", "rotate and keep", "attend", "o", "add", "gate, up", "activation", "down", "paths")
    }
    assert all(each.seconds > 0 for each in spent.values())
    assert spent["norm"].calls == 7 and spent["down"].calls == 3
    down = model.get_submodule("layers.0.mlp.down_proj").prepared
    assert spent["down"].weight_bytes == 3 * down.num_bytes


def test_what_no_operation_computes_stays_with_the_modules() -> None:
    model = resident.random_of(CONFIGS["llama"], "llama", kind=None).model
    compile_blocks(model)
    assert model.program is None
    assert Text(model).read(NUM).isfinite().all()

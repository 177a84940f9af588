"""Attention over pages: the kernel, and the way without it, against the document's formula, and steady bits."""

from __future__ import annotations

import resource
from dataclasses import replace
from typing import Any

import pytest
import torch

from riallm.nn import page_attention
from riallm.nn.attention import Ranges, attend_reference, file_terms, visible
from riallm.nn.meta import TokenMeta
from riallm.nn.paged import PAGE, PagedPass, PagedState, PageStore, Table, row_of

RELATIONS = torch.tensor([[1, 0, 0], [2, 1, 0], [0, 0, 1]])
CASES = [
    {"heads": 4, "groups": 2, "size": 64, "tokens": 200, "new": 200, "ranges": None},
    {"heads": 4, "groups": 4, "size": 16, "tokens": 200, "new": 13, "ranges": Ranges(local=24, file=70)},
    {"heads": 6, "groups": 2, "size": 24, "tokens": 130, "new": 130, "ranges": Ranges(local=8, file=30)},
    {"heads": 12, "groups": 2, "size": 128, "tokens": 300, "new": 5, "ranges": None},
]


class Run:
    """A sequence of three files whose first tokens are in pages already, among others' pages."""

    def __init__(self, case: dict[str, Any], *, dtype: torch.dtype = torch.float32, int8: bool = False) -> None:
        self.case, draw = case, torch.Generator().manual_seed(3)
        heads, groups, size, tokens = (case[name] for name in ("heads", "groups", "size", "tokens"))
        self.q, self.k, self.v = (
            torch.randn(1, each, tokens, size, generator=draw).to(dtype) for each in (heads, groups, groups)
        )
        self.alpha = torch.randn(heads, 3, generator=draw)
        self.files = (torch.arange(tokens) * 3 // tokens).tolist()
        num_pages = 2 * (tokens // PAGE + 1)
        self.store = PageStore(
            num_pages=num_pages, num_layers=2, num_kv_heads=groups, head_dim=size, dtype=dtype, int8=int8
        )
        pages = torch.randperm(num_pages, generator=draw)[: tokens // PAGE + 1].tolist()
        self.table = Table(pages=tuple(pages), num_tokens=0, relations=RELATIONS)

    def go_on(self, num: int) -> torch.Tensor:
        """(1, H, num, K): attention of the next tokens in layer 1."""
        first, last = self.table.num_tokens, self.table.num_tokens + num
        meta = row_of([self.table], [self.files[first:last]])
        within = PagedState(store=self.store, tables=(self.table,)).begin(meta, self.case["ranges"])
        assert isinstance(within, PagedPass)
        own = (each[:, :, first:last] for each in (self.q, self.k, self.v))
        out = within.attend(1, *own, self.alpha)
        (self.table,) = within.after().tables
        return out

    def wanted(self) -> torch.Tensor:
        meta = replace(
            TokenMeta.plain(1, self.case["tokens"]), files=torch.tensor([self.files]), relations=RELATIONS[None]
        )
        mask = visible(meta, meta, self.case["ranges"])
        terms = file_terms(self.alpha, RELATIONS[None])
        return attend_reference(self.q, self.k, self.v, mask=mask, terms=terms, query=meta, key=meta)


@pytest.fixture(params=["kernel", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "torch":
        monkeypatch.setattr("riallm.nn.paged.available", lambda: False)
    elif not page_attention.available():
        pytest.skip("there is no C++ compiler here")
    return str(request.param)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("dtype", "int8", "far"), [(torch.float32, False, 2e-5), (torch.bfloat16, False, 2e-2), (torch.float32, True, 5e-2)]
)
def test_pages_hold_what_the_formula_says(
    way: str, case: dict[str, Any], dtype: torch.dtype, int8: bool, far: float
) -> None:
    run = Run(case, dtype=dtype, int8=int8)
    before = case["tokens"] - case["new"]
    if before:
        run.go_on(before)
    found = run.go_on(case["new"])
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), run.wanted()[:, :, before:].float(), atol=far, rtol=far)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("cuts", [[1] * 9, [64, 64], [63, 1, 1, 5]])
def test_bits_do_not_depend_on_how_a_sequence_is_cut(case: dict[str, Any], cuts: list[int]) -> None:
    if not page_attention.available():
        pytest.skip("there is no C++ compiler here")
    whole = Run(case).go_on(case["tokens"])
    parts = Run(case)
    pieces = [parts.go_on(num) for num in cuts]
    pieces.append(parts.go_on(case["tokens"] - sum(cuts)))
    assert torch.equal(torch.cat(pieces, dim=2), whole)


def test_bits_do_not_depend_on_the_company() -> None:
    if not page_attention.available():
        pytest.skip("there is no C++ compiler here")
    alone = Run(CASES[1])
    wanted = alone.go_on(100)
    run = Run(CASES[1])
    spare = [page for page in range(run.store.num_pages) if page not in run.table.pages]
    other = Table(pages=tuple(spare[:2]), num_tokens=0, relations=torch.ones(1, 1, dtype=torch.int64))
    meta = row_of([other, run.table], [[0] * 30, run.files[:100]])
    within = PagedState(store=run.store, tables=(other, run.table)).begin(meta, CASES[1]["ranges"])
    own = (torch.cat((torch.ones(1, each.shape[1], 30, 16), each[:, :, :100]), dim=2) for each in (run.q, run.k, run.v))
    assert torch.equal(within.attend(1, *own, run.alpha)[:, :, 30:], wanted)


def test_memory_is_taken_where_pages_are_used() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    store = PageStore(num_pages=4096, num_layers=8, num_kv_heads=4, head_dim=64)
    assert store.num_bytes > 4 << 30
    store.write(3, torch.arange(PAGE), torch.ones(PAGE, 4, 64), torch.ones(PAGE, 4, 64))
    keys, values = store.read(3, torch.tensor([0, 1]), 2 * PAGE)
    assert keys[:, :, :PAGE].eq(1).all() and not values[:, :, PAGE:].any()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB: far below four GiB


def test_a_row_in_which_sequences_are_mixed_is_refused() -> None:
    run = Run(CASES[1])
    meta = row_of([run.table, run.table], [[0], [0]])
    mixed = replace(meta, segments=torch.tensor([[0, 1, 0]]), positions=torch.zeros(1, 3), files=torch.zeros(1, 3))
    with pytest.raises(ValueError, match="stand together"):
        PagedState(store=run.store, tables=(run.table, run.table)).begin(mixed, None)

"""Attention against its reference: the file bias, the ranges, grouped heads, gradients, and step by step as at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from riallm.nn.attention import (
    BLOCK,
    Ranges,
    attend,
    attend_few,
    attend_reference,
    file_terms,
    in_blocks,
    visible,
)
from riallm.nn.attention_layer import Attention, AttentionConfig
from riallm.nn.meta import Relation, TokenMeta
from riallm.nn.state import Alone, KVState, ModelState, State, joined

B, T, H, G, K, F = 2, 13, 4, 2, 8, 3


@pytest.fixture
def meta() -> TokenMeta:
    """Two rows of three files; in each the third imports the first, and the first two lie in one module."""
    draw = torch.Generator().manual_seed(0)
    files = torch.sort(torch.randint(0, F, (B, T), generator=draw)).values
    relations = torch.full((B, F, F), int(Relation.NONE))
    relations[:, range(F), range(F)] = int(Relation.SAME)
    relations[:, 2, 0] = int(Relation.IMPORT)
    relations[:, 1, 0] = relations[:, 0, 1] = int(Relation.MODULE)
    positions = torch.arange(T).expand(B, T)
    return TokenMeta(
        positions=positions, segments=torch.zeros(B, T, dtype=torch.int64), files=files, relations=relations
    )


def tensors() -> tuple[torch.Tensor, ...]:
    draw = torch.Generator().manual_seed(1)
    shapes = ((B, H, T, K), (B, G, T, K), (B, G, T, K), (H, 3))
    return tuple(torch.randn(shape, generator=draw, requires_grad=True) for shape in shapes)


@pytest.mark.parametrize("quick", [attend, attend_few])
@pytest.mark.parametrize("ranges", [None, Ranges(local=3, file=6), Ranges(local=1, file=2)])
def test_the_quick_paths_are_the_document_s_formula(
    meta: TokenMeta, ranges: Ranges | None, quick: Callable[..., torch.Tensor]
) -> None:
    results = []
    for path in (quick, attend_reference):
        q, k, v, alpha = tensors()
        mask = visible(meta, meta, ranges)
        out = path(q, k, v, mask=mask, terms=file_terms(alpha, meta.relations), query=meta, key=meta)
        out.square().sum().backward()
        results.append((out, q.grad, k.grad, v.grad, alpha.grad))
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, atol=2e-5, rtol=2e-5)


def long_meta(tokens: int) -> TokenMeta:
    """One row of two segments, and of three files of which the third imports the first."""
    place = torch.arange(tokens)[None]
    relations = torch.tensor([[[1, 0, 0], [0, 1, 0], [2, 0, 1]]])
    return TokenMeta(
        positions=place % (tokens * 3 // 4),
        segments=place // (tokens * 3 // 4),
        files=place * 3 // tokens,
        relations=relations,
    )


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_a_mask_in_blocks_is_the_mask() -> None:
    """Forward alone: the processor has no gradient of this kernel; a visit to a GPU checks it (`riallm.bench.gpu`)."""
    meta = long_meta(3 * BLOCK)
    mask = visible(meta, meta, Ranges(local=8, file=60))
    draw = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(1, heads, 3 * BLOCK, K, generator=draw) for heads in (H, G, G))
    terms = file_terms(torch.randn(H, 3, generator=draw), meta.relations)
    found = attend(q, k, v, mask=in_blocks(mask), terms=terms, query=meta, key=meta)
    wanted = attend_reference(q, k, v, mask=mask, terms=terms, query=meta, key=meta)
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=2e-5)


def test_full_blocks_and_empty_ones_are_told_apart() -> None:
    tokens = 3 * BLOCK
    mask = torch.zeros(1, 1, tokens, tokens, dtype=torch.bool)
    mask[..., 2 * BLOCK :, :BLOCK] = True
    mask[..., 2 * BLOCK :, 2 * BLOCK :] = torch.ones(BLOCK, BLOCK).tril().bool()
    blocks = in_blocks(mask)
    assert blocks.full_kv_num_blocks is not None and blocks.full_kv_indices is not None
    assert blocks.kv_num_blocks[0, 0].tolist() == [0, 0, 1] and blocks.kv_indices[0, 0, 2, 0] == 2
    assert blocks.full_kv_num_blocks[0, 0].tolist() == [0, 0, 1] and blocks.full_kv_indices[0, 0, 2, 0] == 0


def test_no_mask_is_causal(meta: TokenMeta) -> None:
    q, k, v, _ = tensors()
    plain = attend(q, k, v, mask=None, terms=None, query=meta, key=meta)
    masked = attend(q, k, v, mask=visible(meta, meta, None), terms=None, query=meta, key=meta)
    torch.testing.assert_close(plain, masked)


def test_each_relation_has_its_own_term(meta: TokenMeta) -> None:
    alpha = torch.tensor([[1.0, 2.0, 3.0]])
    terms = file_terms(alpha, meta.relations)[0, 0]
    assert terms.tolist() == [[1.0, 3.0, 0.0], [3.0, 1.0, 0.0], [2.0, 0.0, 1.0]]


def test_the_ranges_are_those_of_the_document() -> None:
    """Local: everything; own file: further; imported and same module: any distance; unrelated: local only."""
    files = torch.tensor([[0, 0, 1, 1, 2, 2, 2, 2, 2, 2]])
    relations = torch.tensor([[[1, 0, 0], [0, 1, 0], [2, 0, 1]]])  # the third file imports the first
    positions = torch.arange(10)[None]
    meta = TokenMeta(positions=positions, segments=torch.zeros_like(positions), files=files, relations=relations)
    seen = visible(meta, meta, Ranges(local=2, file=4))[0, 0]
    assert seen[9].nonzero().flatten().tolist() == [0, 1, 6, 7, 8, 9]
    assert seen[4].nonzero().flatten().tolist() == [0, 1, 3, 4]
    assert seen[3].nonzero().flatten().tolist() == [2, 3]


def test_compiled_code_sees_what_plain_code_sees() -> None:
    meta = long_meta(64)
    ranges = Ranges(local=4, file=12)
    compiled = torch.compile(visible, backend="eager", fullgraph=True)
    assert torch.equal(compiled(meta, meta, ranges), visible(meta, meta, ranges))


def test_segments_do_not_see_each_other() -> None:
    positions, segments = torch.tensor([[0, 1, 0, 1]]), torch.tensor([[0, 0, 1, 1]])
    files, relations = torch.zeros_like(positions), torch.ones(1, 1, 1, dtype=torch.int64)
    meta = TokenMeta(positions=positions, segments=segments, files=files, relations=relations)
    assert visible(meta, meta, None)[0, 0].tolist() == [
        [True, False, False, False],
        [True, True, False, False],
        [False, False, True, False],
        [False, False, True, True],
    ]


def test_step_by_step_is_as_at_once(meta: TokenMeta) -> None:
    torch.manual_seed(0)
    layer = Attention(
        AttentionConfig(hidden_size=16, num_heads=H, num_kv_heads=G, head_dim=K, qk_norm_eps=1e-5, file_bias=True)
    )
    with torch.no_grad():
        layer.alpha.normal_()  # type: ignore[union-attr]
    x = torch.randn(B, T, 16)
    turn = (torch.ones(B, 1, T, K // 2), torch.zeros(B, 1, T, K // 2))
    ranges = Ranges(local=3, file=6)
    whole = layer(x, turn=turn, within=Alone(meta, ranges), layer=0)
    nothing, none = torch.empty(B, G, 0, K), meta.positions[:, :0]
    before = TokenMeta(positions=none, segments=none, files=none, relations=meta.relations)
    state: State = ModelState(layers=(KVState(keys=nothing, values=nothing),), meta=before)
    parts = []
    for first, last in ((0, 5), (5, 6), (6, 13)):
        part = TokenMeta(
            positions=meta.positions[:, first:last],
            segments=meta.segments[:, first:last],
            files=meta.files[:, first:last],
            relations=meta.relations,
        )
        turned = (turn[0][:, :, first:last], turn[1][:, :, first:last])
        within = state.begin(part, ranges)
        parts.append(layer(x[:, first:last], turn=turned, within=within, layer=0))
        after = within.after()
        assert after is not None
        state = after
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-5)


def test_files_of_a_row_only_grow(meta: TokenMeta) -> None:
    with pytest.raises(ValueError, match="3 before, 1 now"):
        joined(meta, TokenMeta.plain(B, 2))

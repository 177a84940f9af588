"""Which tokens see which, with a learned bias between files, and the weighted sum of what they see (RIA document, 2.3).

Letters: B rows, T query tokens, S key tokens, D hidden, H heads, G key-value heads, K head size, F files of a row.

The bias of a score depends on the two tokens' files alone, so it is a product of a query part (the learned term of
every file as seen from the token's own) and a key part (one-hot of the token's file). `attend` therefore appends F
numbers to queries and keys and calls the fused kernel, gradients included; `attend_reference` adds the matrix as
the document writes it. A test holds the two together.

On a GPU a mask of whole rows keeps the quick kernels away, and most of it is empty; compiled training therefore gives
`attend` the mask in blocks (`in_blocks`), of which empty ones are never computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from riallm.nn.meta import Relation, TokenMeta, related

BLOCK = 128
"""Queries and keys of a block of `in_blocks`."""

Mask = Tensor | BlockMask
"""What may be seen: `visible`, or the same in blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """Distances in tokens: within `local` every file is seen, within `file` the token's own; imported files and those
    of the same module are seen at any distance. None means no such limit."""

    local: int | None
    file: int | None


def visible(query: TokenMeta, key: TokenMeta, ranges: Ranges | None) -> Tensor:
    """(B, 1, T, S), True where a query may see a key: causal, of its own segment, and within the ranges."""
    distance = query.positions[:, :, None] - key.positions[:, None, :]
    seen = (distance >= 0) & (query.segments[:, :, None] == key.segments[:, None, :])
    if ranges is not None and ranges.local is not None:
        relation = related(query, key)
        # Numbers: compiled code takes a comparison of a tensor with a member of an enumeration for false, unasked.
        own = relation == int(Relation.SAME)
        if ranges.file is not None:
            own = own & (distance < ranges.file)
        linked = (relation == int(Relation.IMPORT)) | (relation == int(Relation.MODULE))
        seen = seen & ((distance < ranges.local) | own | linked)
    return seen[:, None]


def in_blocks(mask: Tensor) -> BlockMask:
    """`visible` by blocks of queries and keys: which are empty, which are full, and the mask itself for the rest.

    mask: (B, 1, T, T), T a multiple of BLOCK.
    """
    rows, _, tokens, _ = mask.shape
    num = tokens // BLOCK
    counts = mask.view(rows, 1, num, BLOCK, num, BLOCK).sum(dim=(3, 5))
    full = counts == BLOCK * BLOCK

    def listed(wanted: Tensor) -> tuple[Tensor, Tensor]:
        """How many blocks of each row of blocks are wanted, and which, those first."""
        wanted = wanted.int()
        return wanted.sum(dim=-1, dtype=torch.int32), wanted.argsort(dim=-1, descending=True, stable=True).int()

    def seen(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return mask[row, 0, query, key]

    return BlockMask.from_kv_blocks(*listed((counts > 0) & ~full), *listed(full), BLOCK_SIZE=BLOCK, mask_mod=seen)


def file_terms(alpha: Tensor, relations: Tensor) -> Tensor:
    """(B, H, F, F): the learned term between each two files, from alpha (H, 3) and relations (B, F, F)."""
    terms = F.pad(alpha, (1, 0))  # no relation: nothing is added
    return terms[:, relations].transpose(0, 1)


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, mask: Mask | None, terms: Tensor | None, query: TokenMeta, key: TokenMeta
) -> Tensor:
    """(B, H, T, K) from q (B, H, T, K), k and v (B, G, S, K); mask None is plain causal attention from the first token.

    terms: (B, H, F, F) of `file_terms`, or None for no bias.
    """
    head_dim, scale = q.shape[-1], q.shape[-1] ** -0.5
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    if terms is not None:
        num_files = terms.shape[-1]
        # A product with one-hot rows, not a look-up, whose gradient would have thousands of tokens add to one number.
        towards = F.one_hot(query.files, num_files).to(terms.dtype)[:, None] @ terms  # (B, H, T, F)
        own = F.one_hot(key.files, num_files).to(k.dtype)[:, None].expand(-1, k.shape[1], -1, -1)
        q = torch.cat((q, (towards / scale).to(q.dtype)), dim=-1)
        k = torch.cat((k, own), dim=-1)
    if isinstance(mask, BlockMask):
        found = flex_attention(q, k, v, block_mask=mask, scale=scale)
        assert isinstance(found, Tensor)
        return found
    v = F.pad(v, (0, k.shape[-1] - head_dim))  # the fused kernel wants one size for all three
    seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale)
    return seen[..., :head_dim]


def attend_few(
    q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor, terms: Tensor | None, query: TokenMeta, key: TokenMeta
) -> Tensor:
    """What `attend` computes, for few queries of many rows, as decoding has them: heads that share keys are multiplied
    with them together, so that no key is copied; the fused kernel takes ten times as long for one query a row."""
    rows, heads, tokens, head_dim = q.shape
    groups = k.shape[1]
    scores = q.reshape(rows, groups, -1, head_dim) @ k.transpose(-1, -2)
    scores = scores.view(rows, heads, tokens, -1).float() * head_dim**-0.5
    if terms is not None:
        scores = scores + _bias(terms, query, key)
    weights = scores.masked_fill(~mask, float("-inf")).softmax(dim=-1).to(v.dtype)
    seen: Tensor = weights.view(rows, groups, heads // groups * tokens, -1) @ v
    return seen.view(rows, heads, tokens, head_dim)


def _bias(terms: Tensor, query: TokenMeta, key: TokenMeta) -> Tensor:
    """(B, H, T, S) in float32."""
    rows = torch.arange(query.files.shape[0], device=terms.device)[:, None, None]
    bias: Tensor = terms.float().permute(0, 2, 3, 1)[rows, query.files[:, :, None], key.files[:, None, :]]
    return bias.permute(0, 3, 1, 2)


def attend_reference(
    q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, terms: Tensor | None, query: TokenMeta, key: TokenMeta
) -> Tensor:
    """What `attend` computes, as the document writes it: softmax(QK / sqrt(K) + M_file) V in float32."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, dim=1).float(), v.repeat_interleave(groups, dim=1).float()
    scores = q.float() @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if terms is not None:
        scores = scores + _bias(terms, query, key)
    if mask is None:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    seen: Tensor = scores.masked_fill(~mask, float("-inf")).softmax(dim=-1) @ v
    return seen.to(q.dtype)

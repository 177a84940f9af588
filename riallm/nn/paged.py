"""Keys and values in pages: what an engine keeps for many sequences of any length, shares between them and gives back.

Tokens of several sequences go through the model as one row (`TokenMeta.segments` tells them apart), so that every
matrix is read once for all of them; attention looks at one sequence after the other.

Letters: N tokens of the call, H heads, G key-value heads, K head size, P pages, S tokens of a sequence so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from riallm.nn.attention import Ranges, attend, attend_few, file_terms, visible
from riallm.nn.meta import TokenMeta
from riallm.nn.state import FEW

PAGE = 64
"""Tokens of a page."""


class PageStore:
    """The memory of all pages: for every layer keys and values (P, G, PAGE, K), and the file of every token.

    int8: a token's keys and values are kept as whole numbers with one scale a head, a little over half of the memory.
    """

    def __init__(
        self,
        *,
        num_pages: int,
        num_layers: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype = torch.float32,
        int8: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        self.num_pages, self.dtype, self.int8 = num_pages, dtype, int8
        shape = (num_layers, 2, num_pages, num_kv_heads, PAGE, head_dim)
        self._kept = torch.zeros(shape, dtype=torch.int8 if int8 else dtype, device=device)
        self._scales = torch.zeros(shape[:-1], dtype=torch.float32, device=device) if int8 else None
        self.files = torch.zeros(num_pages, PAGE, dtype=torch.int64, device=device)

    @property
    def num_bytes(self) -> int:
        """Memory of all pages."""
        scales = 0 if self._scales is None else self._scales.nbytes
        return self._kept.nbytes + scales + self.files.nbytes

    def write(self, layer: int, places: Tensor, k: Tensor, v: Tensor) -> None:
        """Put k and v (N, G, K) at `places` (N,): page times PAGE plus the token's place in it."""
        pages, slots = places // PAGE, places % PAGE
        for kind, new in enumerate((k, v)):
            if self._scales is None:
                self._kept[layer, kind, pages, :, slots] = new
                continue
            scales = new.float().abs().amax(dim=-1) / 127
            inverse = torch.where(scales == 0, 0.0, 1.0 / scales)
            self._kept[layer, kind, pages, :, slots] = (new.float() * inverse[..., None]).round().to(torch.int8)
            self._scales[layer, kind, pages, :, slots] = scales

    def read(self, layer: int, pages: Tensor, num_tokens: int) -> tuple[Tensor, Tensor]:
        """Keys and values (1, G, S, K) of the first `num_tokens` in these pages."""
        found = self._kept[layer][:, pages]  # (2, pages, G, PAGE, K)
        if self._scales is not None:
            found = (found.float() * self._scales[layer][:, pages, ..., None]).to(self.dtype)
        kinds, _, heads, _, size = found.shape
        joined = found.transpose(1, 2).reshape(kinds, heads, -1, size)[:, :, :num_tokens]
        return joined[:1], joined[1:]

    def copy(self, source: int, target: int) -> None:
        """Make a page equal to another one."""
        self._kept[:, :, target] = self._kept[:, :, source]
        self.files[target] = self.files[source]
        if self._scales is not None:
            self._scales[:, :, target] = self._scales[:, :, source]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Where a sequence lies: its pages in order, how many tokens are in them, and how its files are related (F, F)."""

    pages: tuple[int, ...]
    num_tokens: int
    relations: Tensor


class Stretch(NamedTuple):
    """The call's tokens of one sequence, `first` to `last` of the row, and what they may see of `num_tokens`."""

    first: int
    last: int
    num_tokens: int
    pages: Tensor
    query: TokenMeta
    key: TokenMeta
    mask: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class PagedState:
    """Sequences in pages. Whoever opens a pass has made room for its tokens in pages that are nobody else's."""

    store: PageStore
    tables: tuple[Table, ...]

    def begin(self, meta: TokenMeta, ranges: Ranges | None) -> PagedPass:
        """A pass over one row of tokens (1, N): `segments` names the table of each, files are numbered within it."""
        return PagedPass(self, meta, ranges)


class PagedPass:
    """A pass over tokens of several sequences."""

    def __init__(self, state: PagedState, meta: TokenMeta, ranges: Ranges | None) -> None:
        self.store, self.tables = state.store, list(state.tables)
        which, counts = torch.unique_consecutive(meta.segments[0], return_counts=True)
        if meta.segments.shape[0] != 1 or len(which) != len(set(which.tolist())):
            raise ValueError("a pass over pages takes one row in which every sequence's tokens stand together")
        self.stretches: list[Stretch] = []
        places: list[Tensor] = []
        first = 0
        for number, count in zip(which.tolist(), counts.tolist(), strict=True):
            table = state.tables[number]
            last, total = first + count, table.num_tokens + count
            pages = torch.tensor(table.pages, device=meta.files.device)
            at = torch.arange(table.num_tokens, total, device=pages.device)
            places.append(pages[at // PAGE] * PAGE + at % PAGE)
            self.store.files.view(-1)[places[-1]] = meta.files[0, first:last]
            self.stretches.append(_stretch(self.store, table, meta, ranges, first, last, pages))
            self.tables[number] = replace(table, num_tokens=total)
            first = last
        self.places = torch.cat(places)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, alpha: Tensor | None) -> Tensor:
        """See `Pass.attend`."""
        self.store.write(layer, self.places, k[0].transpose(0, 1), v[0].transpose(0, 1))
        seen = torch.empty_like(q)
        for stretch in self.stretches:
            keys, values = self.store.read(layer, stretch.pages, stretch.num_tokens)
            terms = None
            if alpha is not None and stretch.query.num_files > 1:
                terms = file_terms(alpha, stretch.query.relations)
            own = q[:, :, stretch.first : stretch.last]
            quick = attend_few if own.shape[2] * stretch.num_tokens <= FEW else attend
            seen[:, :, stretch.first : stretch.last] = quick(
                own, keys, values, mask=stretch.mask, terms=terms, query=stretch.query, key=stretch.key
            )
        return seen

    def after(self) -> PagedState:
        """See `Pass.after`."""
        return PagedState(store=self.store, tables=tuple(self.tables))


def _stretch(
    store: PageStore, table: Table, meta: TokenMeta, ranges: Ranges | None, first: int, last: int, pages: Tensor
) -> Stretch:
    total = table.num_tokens + last - first
    relations = table.relations[None].to(pages.device)
    query = TokenMeta(
        positions=meta.positions[:, first:last],
        segments=torch.zeros_like(meta.segments[:, first:last]),
        files=meta.files[:, first:last],
        relations=relations,
    )
    positions = torch.arange(total, device=pages.device)[None]
    key = TokenMeta(
        positions=positions,
        segments=torch.zeros_like(positions),
        files=store.files[pages].reshape(1, -1)[:, :total],
        relations=relations,
    )
    return Stretch(first, last, total, pages, query, key, visible(query, key, ranges))


def row_of(tables: Sequence[Table], files: Sequence[Sequence[int]]) -> TokenMeta:
    """The record of one row in which each table goes on by tokens of these files (one list a table, empty for none)."""
    counts = [len(each) for each in files]
    positions = [torch.arange(t.num_tokens, t.num_tokens + n) for t, n in zip(tables, counts, strict=True)]
    segments = torch.repeat_interleave(torch.arange(len(tables)), torch.tensor(counts))
    return TokenMeta(
        positions=torch.cat(positions)[None],
        segments=segments[None],
        files=torch.tensor([file for each in files for file in each], dtype=torch.int64)[None],
        relations=torch.ones(1, 1, 1, dtype=torch.int64),
    )

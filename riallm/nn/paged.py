"""Keys and values in pages: what an engine keeps for many sequences of any length, shares between them and gives back.

Tokens of several sequences go through the model as one row (`TokenMeta.segments` tells them apart), so that every
matrix is read once for all of them; attention looks at one sequence after the other.

Letters: N tokens of the call, H heads, G key-value heads, K head size, P pages, S tokens of a sequence so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import torch
from torch import Tensor

from riallm.nn.attention import Ranges, attend, attend_few, file_terms, visible
from riallm.nn.meta import TokenMeta
from riallm.nn.page_attention import KINDS, Queries, attend_pages, available
from riallm.nn.state import FEW

PAGE = 64
"""Tokens of a page."""


class PageStore:
    """The memory of all pages: for every layer keys (P, G, K, PAGE) and values (P, G, PAGE, K), and the file of every
    token. Memory that no page has used yet is not taken from the system.

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
        kept = torch.int8 if int8 else dtype
        heads = (num_layers, num_pages, num_kv_heads)
        self._keys = _zeros((*heads, head_dim, PAGE), kept, device)
        self._values = _zeros((*heads, PAGE, head_dim), kept, device)
        self._scales = tuple(_zeros((*heads, PAGE), torch.float32, device) for _ in range(2)) if int8 else None
        self.files = _zeros((num_pages, PAGE), torch.int64, device)

    @property
    def num_bytes(self) -> int:
        """Memory of all pages, used or not."""
        scales = sum(each.nbytes for each in self._scales or ())
        return self._keys.nbytes + self._values.nbytes + scales + self.files.nbytes

    def write(self, layer: int, places: Tensor, k: Tensor, v: Tensor) -> None:
        """Put k and v (N, G, K) at `places` (N,): page times PAGE plus the token's place in it."""
        pages, slots = places // PAGE, places % PAGE
        if self._scales is not None:
            (k, of_k), (v, of_v) = _rounded(k), _rounded(v)
            self._scales[0][layer, pages, :, slots] = of_k
            self._scales[1][layer, pages, :, slots] = of_v
        self._keys[layer, pages, :, :, slots] = k
        self._values[layer, pages, :, slots] = v

    def read(self, layer: int, pages: Tensor, num_tokens: int) -> tuple[Tensor, Tensor]:
        """Keys and values (1, G, S, K) of the first `num_tokens` in these pages."""
        found = []
        for kind, kept in enumerate((self._keys[layer][pages].transpose(-1, -2), self._values[layer][pages])):
            if self._scales is not None:
                kept = (kept.float() * self._scales[kind][layer][pages][..., None]).to(self.dtype)
            _, heads, _, size = kept.shape
            found.append(kept.transpose(0, 1).reshape(1, heads, -1, size)[:, :, :num_tokens])
        return found[0], found[1]

    def copy(self, source: int, target: int) -> None:
        """Make a page equal to another one."""
        self.files[target] = self.files[source]
        for each in (self._keys, self._values, *(self._scales or ())):
            each[:, target] = each[:, source]

    def layer(self, number: int) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]:
        """Keys, values and for int8 the scales of both, as the class has them; layers follow one another in memory."""
        scales = None if self._scales is None else (self._scales[0][number], self._scales[1][number])
        return self._keys[number], self._values[number], scales

    @property
    def compiled(self) -> bool:
        """Whether the compiled kernel takes these pages."""
        return self.files.device.type == "cpu" and self._keys.dtype in KINDS and available()


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str) -> Tensor:
    if torch.device(device).type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    # Unlike torch's, these zeros are the system's own, and take memory only where they are written.
    return torch.from_numpy(np.zeros(prod(shape) * dtype.itemsize, dtype=np.uint8)).view(dtype).view(shape)


def _rounded(new: Tensor) -> tuple[Tensor, Tensor]:
    """(N, G, K) -> int8 codes and scales (N, G)."""
    scales = new.float().abs().amax(dim=-1) / 127
    inverse = torch.where(scales == 0, 0.0, 1.0 / scales)
    return (new.float() * inverse[..., None]).round().to(torch.int8), scales


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Where a sequence lies: its pages in order, how many tokens are in them, and how its files are related (F, F)."""

    pages: tuple[int, ...]
    num_tokens: int
    relations: Tensor


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
        self.store, self.tables, self.ranges = state.store, list(state.tables), ranges
        which, counts = torch.unique_consecutive(meta.segments[0], return_counts=True)
        if meta.segments.shape[0] != 1 or len(which) != len(set(which.tolist())):
            raise ValueError("a pass over pages takes one row in which every sequence's tokens stand together")
        self.queries: list[Queries] = []
        places: list[Tensor] = []
        first = 0
        for number, count in zip(which.tolist(), counts.tolist(), strict=True):
            table = state.tables[number]
            last, total = first + count, table.num_tokens + count
            pages = torch.tensor(table.pages, device=meta.files.device)
            at = torch.arange(table.num_tokens, total, device=pages.device)
            places.append(pages[at // PAGE] * PAGE + at % PAGE)
            self.store.files.view(-1)[places[-1]] = meta.files[0, first:last]
            self.queries.append(
                Queries(
                    first=first,
                    last=last,
                    num_tokens=total,
                    pages=pages,
                    files=self.store.files[pages].view(-1)[:total].contiguous(),
                    relations=table.relations.to(device=pages.device, dtype=torch.uint8),
                    terms=None,
                )
            )
            self.tables[number] = replace(table, num_tokens=total)
            first = last
        self.places = torch.cat(places)
        self._seen: list[tuple[TokenMeta, TokenMeta, Tensor]] | None = None

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, alpha: Tensor | None) -> Tensor:
        """See `Pass.attend`."""
        self.store.write(layer, self.places, k[0].transpose(0, 1), v[0].transpose(0, 1))
        queries = [replace(each, terms=terms_of(alpha, each.relations)) for each in self.queries]
        if self.store.compiled:
            rows = q[0].transpose(0, 1).float().contiguous()
            out = attend_pages(rows, *self.store.layer(layer), queries, self.ranges)
            return out.to(q.dtype).transpose(0, 1)[None]
        if self._seen is None:
            self._seen = [_seen(each, self.ranges) for each in self.queries]
        seen = torch.empty_like(q)
        for each, (query, key, mask) in zip(queries, self._seen, strict=True):
            keys, values = self.store.read(layer, each.pages, each.num_tokens)
            own = q[:, :, each.first : each.last]
            quick = attend_few if own.shape[2] * each.num_tokens <= FEW else attend
            terms = None if each.terms is None else each.terms[None].to(q.dtype)
            seen[:, :, each.first : each.last] = quick(own, keys, values, mask=mask, terms=terms, query=query, key=key)
        return seen

    def after(self) -> PagedState:
        """See `Pass.after`."""
        return PagedState(store=self.store, tables=tuple(self.tables))


def terms_of(alpha: Tensor | None, relations: Tensor) -> Tensor | None:
    """(H, F, F) in float32 of a sequence whose files are related so (F, F). None for one file: all scores would get the
    same number, which softmax takes off again."""
    if alpha is None or relations.shape[-1] == 1:
        return None
    return file_terms(alpha.float(), relations[None].long())[0].contiguous()


def _seen(queries: Queries, ranges: Ranges | None) -> tuple[TokenMeta, TokenMeta, Tensor]:
    """Records of the queries and the keys of a sequence, and what may be seen, for attention without the kernel."""
    key = replace(
        TokenMeta.plain(1, queries.num_tokens, device=queries.files.device),
        files=queries.files[None],
        relations=queries.relations[None].long(),
    )
    begin = queries.num_tokens - (queries.last - queries.first)
    query = replace(
        key, positions=key.positions[:, begin:], segments=key.segments[:, begin:], files=key.files[:, begin:]
    )
    return query, key, visible(query, key, ranges)


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

"""Who has which page: allocation, sharing, copy on write, and prefixes that are found again.

A page that is full and whose content is known by its key may be shared; every other page has one owner. A shared page
is never written: whoever must, gets a copy. A page that nobody holds keeps its content until the memory is needed, the
one that was let go first going first.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from riallm.core.errors import BudgetError
from riallm.nn.paged import PAGE, PageStore, Table

Key = bytes


class PageBook:
    """The pages of one store. Not safe between threads: the engine's own thread has it."""

    def __init__(self, store: PageStore, *, identity: str) -> None:
        """identity: of what the content of all pages depends on beside tokens and adapters: weights, kind of memory."""
        self.store = store
        self._root = _digest(identity.encode())
        self._free = list(range(store.num_pages - 1, -1, -1))
        self._holders = [0] * store.num_pages
        self._keys: list[Key | None] = [None] * store.num_pages
        self._found: dict[Key, int] = {}
        self._cached: OrderedDict[int, None] = OrderedDict()  # known pages that nobody holds, the oldest first

    @property
    def num_available(self) -> int:
        """Pages that can be had now."""
        return len(self._free) + len(self._cached)

    @property
    def num_cached(self) -> int:
        """Pages that nobody holds and that still hold a prefix."""
        return len(self._cached)

    def keys(self, ids: Sequence[int], files: Sequence[int], relations: Tensor, *, adapter: str = "") -> Iterator[Key]:
        """The key of each full page of a sequence. It says all that the page's content depends on: the adapter by its
        identity (none: empty), what stands before, its tokens, their files, and how the files so far are related."""
        key, most = _digest(self._root, adapter.encode()), 0
        for first in range(0, len(ids) - PAGE + 1, PAGE):
            own = files[first : first + PAGE]
            most = max(most, *own)
            known = relations[: most + 1, : most + 1].flatten().tolist()
            key = _digest(key, *(_numbers(each) for each in (ids[first : first + PAGE], own, known)))
            yield key

    def open(self, ids: Sequence[int], files: Sequence[int], relations: Tensor, *, adapter: str = "") -> Table:
        """A table for a new sequence, with as many of its pages as are known; at least its last token is left to do."""
        pages: list[int] = []
        for key in self.keys(ids[:-1], files[:-1], relations, adapter=adapter):
            page = self._found.get(key)
            if page is None:
                break
            self._hold(page)
            pages.append(page)
        return Table(pages=tuple(pages), num_tokens=len(pages) * PAGE, relations=relations)

    def reserve(self, table: Table, num_tokens: int) -> Table:
        """Room for `num_tokens` more, in pages that are this sequence's alone. Raises BudgetError, and takes nothing,
        when there are not enough."""
        wanted = max(0, pages_of(table.num_tokens + num_tokens) - len(table.pages))
        at, inside = divmod(table.num_tokens, PAGE)
        shared = num_tokens > 0 and inside > 0 and not self._alone(table.pages[at])
        missing = wanted + shared - self.num_available
        if missing > 0:
            raise BudgetError(f"{missing} pages of {PAGE} tokens are missing; {self.store.num_pages} are all there are")
        pages = list(table.pages)
        if shared:
            copy = self._take()
            self.store.copy(pages[at], copy)
            self._let_go(pages[at])
            pages[at] = copy
        pages += [self._take() for _ in range(wanted)]
        return replace(table, pages=tuple(pages))

    def fork(self, table: Table) -> Table:
        """The same sequence once more; its pages are shared until one of the two goes on."""
        forked = replace(table, pages=table.pages[: pages_of(table.num_tokens)])
        for page in forked.pages:
            self._hold(page)
        return forked

    def truncate(self, table: Table, num_tokens: int) -> Table:
        """The first `num_tokens` of a sequence; pages behind them are let go."""
        kept = pages_of(num_tokens)
        for page in table.pages[kept:]:
            self._let_go(page)
        return replace(table, pages=table.pages[:kept], num_tokens=num_tokens)

    def release(self, table: Table) -> None:
        """The sequence is over."""
        for page in reversed(table.pages):  # so that of a prefix its end is forgotten first
            self._let_go(page)

    def remember(self, table: Table, keys: Iterable[Key]) -> None:
        """Let full pages be found by their keys, one a page in order."""
        for page, key in zip(table.pages, keys, strict=False):
            if self._keys[page] is None and key not in self._found:
                self._keys[page], self._found[key] = key, page

    def forget(self) -> None:
        """No page is found any more: the weights changed."""
        self._free += self._cached
        self._cached.clear()
        self._found.clear()
        self._keys = [None] * self.store.num_pages

    def check_integrity(self, tables: Iterable[Table]) -> None:
        """Raises AssertionError unless the book agrees with all tables that are in use."""
        counts = [0] * self.store.num_pages
        for table in tables:
            assert len(table.pages) >= pages_of(table.num_tokens), "a sequence has tokens outside its pages"
            assert len(set(table.pages)) == len(table.pages), "a page is twice in one sequence"
            for page in table.pages:
                counts[page] += 1
        assert counts == self._holders, "holders are counted wrongly"
        idle = {page for page, count in enumerate(counts) if count == 0}
        assert sorted([*self._free, *self._cached]) == sorted(idle), "an idle page is lost, or there twice"
        assert all(self._keys[page] is None for page in self._free), "a free page has a key"
        assert {key: page for page, key in enumerate(self._keys) if key is not None} == self._found

    def _alone(self, page: int) -> bool:
        return self._holders[page] == 1 and self._keys[page] is None

    def _hold(self, page: int) -> None:
        self._cached.pop(page, None)
        self._holders[page] += 1

    def _let_go(self, page: int) -> None:
        self._holders[page] -= 1
        if self._holders[page] == 0 and self._keys[page] is None:
            self._free.append(page)
        elif self._holders[page] == 0:
            self._cached[page] = None

    def _take(self) -> int:
        if self._free:
            page = self._free.pop()
        else:
            page, _ = self._cached.popitem(last=False)
            key, self._keys[page] = self._keys[page], None
            assert key is not None
            del self._found[key]
        self._holders[page] = 1
        return page


def pages_of(num_tokens: int) -> int:
    """Pages that so many tokens take."""
    return -(-num_tokens // PAGE)


def _digest(*parts: bytes) -> Key:
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        found.update(len(part).to_bytes(8, "little") + part)
    return found.digest()


def _numbers(values: Sequence[int]) -> bytes:
    return torch.tensor(values, dtype=torch.int64).numpy().tobytes()

"""The book of pages under random operations: nothing is lost, shared pages are never written, prefixes are true."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from riallm.core.errors import BudgetError
from riallm.engine.pages import PageBook
from riallm.nn.paged import PAGE, PageStore, Table

NUM_PAGES = 12
ONE = torch.ones(1, 1, dtype=torch.int64)


def book() -> PageBook:
    return PageBook(PageStore(num_pages=NUM_PAGES, num_layers=1, num_kv_heads=1, head_dim=1), identity="x")


class Life:
    """Sequences whose tokens are written into the pages' keys, so that what a table reads tells who wrote there."""

    def __init__(self, seed: int) -> None:
        self.book, self.draw = book(), random.Random(seed)
        self.open: list[tuple[list[int], Table]] = []

    def write(self, ids: list[int], table: Table, num: int) -> Table:
        table = self.book.reserve(table, num)
        for at in range(table.num_tokens, table.num_tokens + num):
            place = torch.tensor([table.pages[at // PAGE] * PAGE + at % PAGE])
            number = torch.full((1, 1, 1), float(ids[at]))
            self.book.store.write(0, place, number, number)
        return Table(pages=table.pages, num_tokens=table.num_tokens + num, relations=ONE)

    def step(self, kind: int) -> None:
        if kind == 0 or not self.open:
            ids = [self.draw.randrange(2)] * self.draw.randrange(1, 3 * PAGE)  # two kinds of prefixes, often shared
            ids += [self.draw.randrange(9) for _ in range(self.draw.randrange(PAGE))]
            table = self.book.open(ids, [0] * len(ids), ONE)
            try:
                self.open.append((ids, self.write(ids, table, len(ids) - table.num_tokens)))
            except BudgetError:
                self.book.release(table)
            return
        at = self.draw.randrange(len(self.open))
        ids, table = self.open[at]
        if kind == 1:
            num = self.draw.randrange(1, PAGE)
            longer = ids + [self.draw.randrange(9) for _ in range(num)]
            try:
                self.open[at] = (longer, self.write(longer, table, num))
            except BudgetError:
                pass
        elif kind == 2:
            self.open.append((list(ids), self.book.fork(table)))
        elif kind == 3:
            kept = self.draw.randrange(1, len(ids) + 1)
            self.open[at] = (ids[:kept], self.book.truncate(table, kept))
        elif kind == 4:
            self.book.remember(table, self.book.keys(ids, [0] * len(ids), ONE))
        else:
            self.book.release(table)
            del self.open[at]

    def check(self) -> None:
        self.book.check_integrity(table for _, table in self.open)
        for ids, table in self.open:
            keys, _ = self.book.store.read(0, torch.tensor(table.pages), table.num_tokens)
            assert keys.flatten().tolist() == ids


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=40), st.integers(0, 10_000))
def test_whatever_happens_the_book_is_right(kinds: list[int], seed: int) -> None:
    life = Life(seed)
    for kind in kinds:
        life.step(kind)
        life.check()
    for _, table in life.open:
        life.book.release(table)
    life.book.check_integrity([])
    life.book.forget()
    assert life.book.num_available == NUM_PAGES and life.book.num_cached == 0


def test_what_is_known_is_found_until_the_memory_is_needed() -> None:
    made = book()
    ids = [1] * (2 * PAGE + 5)
    table = made.reserve(made.open(ids, [0] * len(ids), ONE), len(ids))
    made.remember(table, made.keys(ids, [0] * len(ids), ONE))
    made.release(made.truncate(table, len(ids)))
    assert made.num_cached == 2 and made.open(ids, [0] * len(ids), ONE).num_tokens == 2 * PAGE
    same = made.open(ids[: 2 * PAGE], [0] * 2 * PAGE, ONE)
    assert same.num_tokens == PAGE  # the last token is always left to do
    with pytest.raises(BudgetError, match=r"2 pages of 64 tokens are missing; 12 are all there are"):
        made.reserve(Table(pages=(), num_tokens=0, relations=ONE), 12 * PAGE)


@pytest.mark.parametrize("change", ["token", "file", "relation", "identity", "adapter"])
def test_a_key_tells_all_that_a_page_depends_on(change: str) -> None:
    made = book()
    ids, files, relations = [3] * PAGE, [0] * (PAGE - 1) + [1], torch.tensor([[1, 0], [2, 1]])
    (before,) = made.keys(ids, files, relations)
    if change == "token":
        ids = [*ids[:-1], 4]
    elif change == "file":
        files = [0] * (PAGE - 2) + [1, 1]
    elif change == "relation":
        relations = torch.tensor([[1, 0], [3, 1]])
    elif change == "identity":
        made = PageBook(made.store, identity="y")
    (after,) = made.keys(ids, files, relations, adapter="z" if change == "adapter" else "")
    assert before != after
    (unseen,) = made.keys([3] * PAGE, [0] * PAGE, torch.tensor([[1, 9], [9, 9]]))
    assert (unseen,) == tuple(made.keys([3] * PAGE, [0] * PAGE, ONE))  # of files that come later nothing depends

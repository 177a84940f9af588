"""Who computes what in the next step: answers go on first, then prompts are read, in chunks and in turn.

Every step is one pass over one row, or one pass for each adapter that its sequences have. Answers take a token each
(and what was drafted for them); what is left of `step_tokens` is shared among the prompts that are being read, so that
a long one does not hold up a short one. Where pages run out, whoever came last loses its own and waits until there are
some again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from riallm.core.errors import BudgetError
from riallm.engine.drafting import Drafter
from riallm.engine.pages import PageBook, pages_of
from riallm.engine.sequence import Running

MIN_CHUNK = 32
"""Tokens of a prompt that are worth a place in a step."""


@dataclass(slots=True)
class Part:
    """A sequence's part of a step: so many of its tokens, then drafts behind its last one."""

    running: Running
    num_tokens: int
    drafts: list[int] = field(default_factory=list)

    @property
    def reaches_end(self) -> bool:
        """Whether the sequence's last token is computed, so that the next one can be chosen."""
        return self.num_tokens == self.running.num_left


def by_version(parts: Sequence[Part]) -> list[list[Part]]:
    """Parts that may share a pass, since they are computed with the same adapter; none is left for a later step."""
    found: dict[str, list[Part]] = {}
    for part in parts:
        found.setdefault(part.running.version.identity, []).append(part)
    return list(found.values())


class Scheduler:
    """The queue, those that run, and whose turn it is. `book` has their pages."""

    def __init__(self, book: PageBook, *, step_tokens: int, max_running: int, drafter: Drafter | None = None) -> None:
        self.book, self.step_tokens, self.max_running, self.drafter = book, step_tokens, max_running, drafter
        self.waiting: deque[Running] = deque()
        self.running: list[Running] = []
        self.preemptions = 0

    def add(self, running: Running) -> None:
        """To the end of the queue."""
        self.waiting.append(running)

    def drop(self, done: Iterable[Running]) -> None:
        """Give back the pages of those that are over; what they hold can be found until it is needed."""
        for each in done:
            if each in self.running:
                self.running.remove(each)
            elif each in self.waiting:
                self.waiting.remove(each)
            self._release(each)

    def remember(self, each: Running, num_tokens: int) -> None:
        """Let the pages of a sequence's first tokens, which are computed, be found by whoever begins alike."""
        assert each.table is not None
        ids, files = each.ids[:num_tokens], each.files[:num_tokens]
        self.book.remember(each.table, self.book.keys(ids, files, each.relations, adapter=each.version.identity))

    def step(self) -> list[Part]:
        """The parts of the next step, with pages for all of their tokens; empty when there is nothing to do."""
        self._admit()
        parts: list[Part] = []
        budget = self.step_tokens
        for each in [each for each in self.running if each.num_left == 1]:
            if each.table is None or budget <= 0:
                continue
            drafts = self._drafts(each, budget - 1)
            budget -= 1 + len(drafts)
            parts.append(Part(each, 1, drafts))
        reading = [each for each in self.running if each.num_left > 1]
        for number, each in enumerate(reading):
            share = max(MIN_CHUNK, budget // (len(reading) - number))
            chunk = min(each.num_left, share, budget)
            if chunk < min(MIN_CHUNK, each.num_left):
                break
            budget -= chunk
            parts.append(Part(each, chunk))
        return self._with_pages(parts)

    def _drafts(self, each: Running, room: int) -> list[int]:
        num = min(each.pace.now, room, each.request.max_tokens - each.num_written - 1)
        # What a grammar allows behind a draft is known only when the draft stands.
        if self.drafter is None or each.request.grammar is not None or num <= 0:
            return []
        return self.drafter.propose(each, num)

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self.max_running:
            each = self.waiting[0]
            table = self.book.open(each.ids, each.files, each.relations, adapter=each.version.identity)
            # One page over: an answer that cannot begin would be put back at once.
            if pages_of(len(each.ids) + 1) - len(table.pages) > self.book.num_available and self.running:
                self.book.release(table)
                return
            self.waiting.popleft()
            each.begin(table)
            self.running.append(each)

    def _with_pages(self, parts: list[Part]) -> list[Part]:
        """Reserve pages, the oldest first, at the cost of the youngest."""
        order = {id(each): place for place, each in enumerate(self.running)}
        parts.sort(key=lambda part: order[id(part.running)])
        done: list[Part] = []
        while parts:
            part = parts.pop(0)
            while True:
                table = part.running.table
                assert table is not None
                try:
                    part.running.table = self.book.reserve(table, part.num_tokens + len(part.drafts))
                    done.append(part)
                    break
                except BudgetError:
                    if part.drafts:
                        part.drafts = []
                        continue
                    youngest = self.running[-1]
                    self._preempt(youngest)
                    parts = [other for other in parts if other.running is not youngest]
                    if youngest is part.running:
                        break
        return done

    def _preempt(self, each: Running) -> None:
        self.running.remove(each)
        self._release(each)
        self.waiting.appendleft(each)
        self.preemptions += 1

    def _release(self, each: Running) -> None:
        if self.drafter is not None:
            self.drafter.forget(each)
        if each.table is None:
            return
        self.remember(each, each.table.num_tokens)
        self.book.release(each.table)
        each.table = None

"""Tokens ahead of the model, so that one pass may confirm several: looked up in the text, or by a small model.

Whatever is drafted, the answer stays what it would have been (`Running.take`); a draft only costs the pass more rows.
How far ahead it goes is up to the sequence, by how much of it stood (`Pace`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch

from riallm.core.errors import BudgetError, UsageError
from riallm.nn.paged import PagedState, Table, row_of

if TYPE_CHECKING:
    from riallm.engine.pages import PageBook
    from riallm.engine.sequence import Running
    from riallm.models.decoder import Decoder

PAIR, LONGEST = 2, 8
"""Tokens at the end that must have stood there before, and those that are compared to choose the place."""

PLACES = 8
"""Latest places of the pair that are compared."""

SURE = 0.7
"""Share that the small model must give its own token, or it drafts no further: most of the rest would not stand."""


class Pace:
    """How many tokens a sequence is drafted: more when nearly all stood, fewer when less than half did, and none for a
    while when hardly any did."""

    FEWEST, MOST, REST = 1, 8, 48

    def __init__(self, num: int) -> None:
        self.num, self._failures, self._resting = num, 0, 0

    @property
    def now(self) -> int:
        """Tokens to draft in this step."""
        return 0 if self._resting else self.num

    def told(self, drafted: int, accepted: int) -> None:
        """How a step went."""
        if not drafted:
            self._resting = max(0, self._resting - 1)
            return
        share = accepted / drafted
        if share > 0.9:
            self.num = min(self.MOST, self.num + 1)
        elif share < 0.5:
            self.num = max(self.FEWEST, self.num - 1)
        self._failures = 0 if accepted else self._failures + 1
        if self._failures >= 4:
            self._failures, self._resting = 0, self.REST


class Drafter(Protocol):
    """Where drafts come from. The engine's own thread calls it."""

    def propose(self, running: Running, num: int) -> list[int]:
        """Up to `num` tokens that may follow a sequence."""
        ...

    def forget(self, running: Running) -> None:
        """The sequence is over, or waits."""
        ...


class Lookup:
    """What followed the last few tokens where they stood before (Saxena 2023, prompt lookup)."""

    def __init__(self) -> None:
        self._places: dict[Running, Places] = {}

    def propose(self, running: Running, num: int) -> list[int]:
        """See `Drafter.propose`."""
        return self._places.setdefault(running, Places()).following(running.ids, num)

    def forget(self, running: Running) -> None:
        """See `Drafter.forget`."""
        self._places.pop(running, None)


class Places:
    """Where each pair of tokens of one growing text ends; a step looks at the new tokens alone."""

    def __init__(self) -> None:
        self._ends: dict[tuple[int, int], list[int]] = defaultdict(list)
        self._num = 1

    def following(self, ids: Sequence[int], num: int) -> list[int]:
        """Up to `num` tokens that followed the place whose tokens are like the last ones for longest, the latest of
        such; nothing where the last pair has not been there. `ids`: the text, no shorter than in the last call."""
        for end in range(self._num, len(ids)):  # the last pair is not counted yet: nothing follows it
            if end + 1 < len(ids):
                self._ends[ids[end - 1], ids[end]].append(end + 1)
        self._num = max(self._num, len(ids) - 1)
        if len(ids) < PAIR + 1:
            return []
        found = self._ends.get((ids[-2], ids[-1]), [])[-PLACES:]
        if not found:
            return []
        best = max(found, key=lambda at: (_alike(ids, at), at))
        return list(ids[best : best + num])


def _alike(ids: Sequence[int], at: int) -> int:
    """How many tokens before `at` are those at the end, up to LONGEST."""
    longest = min(LONGEST, at)
    return next((size for size in range(longest) if ids[at - 1 - size] != ids[len(ids) - 1 - size]), longest)


class SmallModel:
    """A model of the same tokens, greedy, with pages of its own; it has read what it could of every sequence."""

    def __init__(self, model: Decoder, book: PageBook) -> None:
        self._model, self._book = model, book
        self._read: dict[Running, tuple[Table, list[int]]] = {}

    @torch.inference_mode()
    def propose(self, running: Running, num: int) -> list[int]:
        """See `Drafter.propose`. Nothing when its own pages do not suffice."""
        table, known = self._read.pop(running, (None, []))
        if table is None:
            table = self._book.open(running.ids, running.files, running.relations)
            known = running.ids[: table.num_tokens]
        same = next((at for at, (one, other) in enumerate(zip(known, running.ids, strict=False)) if one != other), None)
        kept = min(len(known) if same is None else same, len(running.ids) - 1)
        table, known = self._book.truncate(table, kept), known[:kept]
        drafts: list[int] = []
        try:
            while len(drafts) < num:
                new = [*running.ids, *drafts][table.num_tokens :]
                table = self._book.reserve(table, len(new))
                table, share, token = self._next(table, new, running)
                known = [*running.ids, *drafts]
                drafts.append(token)
                if share < SURE:
                    break
        except BudgetError:
            pass
        self._read[running] = table, known
        return drafts

    def forget(self, running: Running) -> None:
        """See `Drafter.forget`."""
        table, _ = self._read.pop(running, (None, []))
        if table is not None:
            self._book.release(table)

    def _next(self, table: Table, new: Sequence[int], running: Running) -> tuple[Table, float, int]:
        first, last = table.num_tokens, table.num_tokens + len(new)
        files = running.files[first:last]
        files += [running.files[-1]] * (len(new) - len(files))  # drafts are of the last token's file
        state = PagedState(store=self._book.store, tables=(table,))
        out = self._model(torch.tensor([list(new)]), row_of([table], [files]), state)
        assert isinstance(out.state, PagedState)
        probs = self._model.logits(out.hidden[0, -1]).softmax(dim=-1)
        token = int(probs.argmax())
        return out.state.tables[0], float(probs[token]), token


def same_tokens(model: Decoder, small: Decoder) -> None:
    """Raises UsageError unless both have as many tokens: a draft is ids."""
    if model.sizes.vocab_size != small.sizes.vocab_size:
        raise UsageError(
            f"the drafting model has {small.sizes.vocab_size} tokens, the model {model.sizes.vocab_size}; they must be "
            "of one vocabulary"
        )

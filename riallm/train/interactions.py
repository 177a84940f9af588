"""Rows of text, interactions and conversations as batches of the supervised stages: shuffled each epoch, ragged with
masks, nothing left out.

A batch is a function of its number and the seed, as those of `train.batches` are. Letters: B rows, N interactions, T
tokens.
"""

from __future__ import annotations

import math
import random
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Literal

from riallm.core.errors import UsageError
from riallm.data.interaction_rows import Rows, Said
from riallm.models.episodes import Episodes, Interaction, episodes
from riallm.tokenizer.hybrid import HybridTokenizer
from riallm.tokenizer.interaction import markers, query_ids

TooLong = Literal["refuse", "cut"]
"""An interaction with more than T tokens is an error, or loses its end: of the answer, and of a query that leaves the
answer less than half of the row."""

FILLED = 0.9
"""How much of a row a piece of text should fill, so that most pieces fit although some have more tokens than others."""

SAMPLE = 60
"""Texts that the characters of a token are counted in."""


class Interactions:
    """`Source` of the training loop: batch n holds B rows, or B pieces of text, from n * B on in an endless sequence of
    epochs. A text that fills several rows is cut into pieces, and a piece that does not fit after all fills another
    row, so a batch of text may have some more rows than B."""

    def __init__(
        self,
        rows: Rows,
        tokenizer: HybridTokenizer,
        *,
        batch_rows: int,
        num_tokens: int,
        too_long: TooLong = "refuse",
        seed: int = 0,
    ) -> None:
        """batch_rows: B. num_tokens: T."""
        self.rows, self.tokenizer, self.too_long = rows, tokenizer, too_long
        self.batch_rows, self.num_tokens, self.seed = batch_rows, num_tokens, seed
        self._markers = markers(tokenizer)
        self._num_bytes = tokenizer.byte_lengths()
        self._order: tuple[int, Sequence[int]] = (-1, ())
        self._ends: array[int] | None = None
        if rows.form == "text":
            self._chars = self._chars_of_piece()
            self._ends = array("Q", accumulate(map(self._num_pieces, rows.sizes)))

    @property
    def num_items(self) -> int:
        """Rows, or pieces of text, of an epoch."""
        return len(self.rows) if self._ends is None else self._ends[-1]

    def __call__(self, number: int) -> Episodes:
        """The batch of a number."""
        first = number * self.batch_rows
        items = [self._item(index) for index in range(first, first + self.batch_rows)]
        told = [row for item in items for row in (self._piece(item) if self._ends else [self._conversation(item)])]
        answers = (one.ids[one.answer_at :] for row in told for one in row)
        num_bytes = sum(self._num_bytes[index] for ids in answers for index in ids)
        made = episodes(told, num_tokens=self.num_tokens, pad=self._markers.pad)
        return replace(made, num_bytes=float(num_bytes), seed=(self.seed << 40) + number)

    def _item(self, index: int) -> int:
        epoch, place = divmod(index, self.num_items)
        if self._order[0] != epoch:
            order = array("Q", range(self.num_items))
            random.Random(f"{self.seed}:order:{epoch}").shuffle(order)
            self._order = (epoch, order)
        return self._order[1][place]

    # Text

    def _chars_of_piece(self) -> int:
        """About. The characters of a token are those of a sample, evenly spread."""
        numbers = range(0, len(self.rows), max(1, len(self.rows) // SAMPLE))
        texts = [self.rows.text(number)[:10_000] for number in numbers]
        tokens = sum(map(len, self.tokenizer.encode_batch(texts)))
        return max(1, int(FILLED * (self.num_tokens - 2) * sum(map(len, texts)) / tokens))

    def _num_pieces(self, size: int) -> int:
        return max(1, math.ceil(size / self._chars))

    def _piece(self, item: int) -> list[list[Interaction]]:
        """A piece of a text in as many rows as it takes, usually one; the text's last row has its end."""
        assert self._ends is not None
        number = bisect_right(self._ends, item)
        num = self._num_pieces(self.rows.sizes[number])
        at = item - (self._ends[number] - num)
        text = self.rows.text(number)
        begin, end = (_between_words(text, len(text) * part // num, self._chars // 4) for part in (at, at + 1))
        ids = self.tokenizer.encode(text[begin:end])
        if at == num - 1:
            ids.append(self._markers.end)
        room = self.num_tokens - 1
        return [
            [Interaction([self._markers.begin, *ids[first : first + room]], 1)] for first in range(0, len(ids), room)
        ]

    # Interactions

    def _conversation(self, number: int) -> list[Interaction]:
        return [self._interaction(said, number) for said in self.rows.said(number)]

    def _interaction(self, said: Said, number: int) -> Interaction:
        """What the model has to say are reasoning, the marker behind it, the answer and the end; the marker in front of
        all that is given to it."""
        own = self._markers
        given = query_ids(self.tokenizer, said.query)
        answer = [own.answer, *self.tokenizer.encode(said.answer), own.end]
        thought = [] if said.think is None else [own.think, *self.tokenizer.encode(said.think)]
        said_ids = [*thought, *answer]
        total, room = len(given) + len(said_ids), self.num_tokens
        if total > room and self.too_long == "refuse":
            raise UsageError(
                f"{self.rows.where(number)}: an interaction of {total} tokens; rows have {room}. Shorten it, take "
                "longer rows, or have such ones cut (too_long=cut)"
            )
        given = given[: max(room // 2, room - len(said_ids))]
        ids = [*given, *said_ids][:room]
        return Interaction(ids, len(ids) if said.heard else len(given) + 1)


def _between_words(text: str, at: int, near: int) -> int:
    """`at`, or where the next white space is, if that is nearer than `near`."""
    places = range(at, min(at + near, len(text))) if at > 0 else ()
    return next((place for place in places if text[place].isspace()), at)

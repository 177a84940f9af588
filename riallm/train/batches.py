"""Batches from rows of documents: cut into windows of one length, shuffled each epoch, holes drawn anew each time.

A batch is a function of its number and the seed, so any batch can be made again: after a kill, by another rank, or to
look at what a loss was taken of. Letters: B rows, T tokens, F files of a row.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from riallm.core.errors import UsageError
from riallm.data import infilling
from riallm.data.corpus.rows import Document
from riallm.data.infilling import Asked
from riallm.data.repair_rows import Repair, ask, cropped, right
from riallm.nn.meta import Relation, TokenMeta
from riallm.tokenizer.hybrid import HybridTokenizer
from riallm.tokenizer.special import END_OF_TEXT, PAD
from riallm.train.objective import IGNORED, Batch

KINDS = ("causal", "middle", "spans", "statements", "repair")
"""Next token; fill in the middle; span corruption; document infilling (RIA document, 3.2.2); code repair (3.3.2)."""

CROPPED = 0.3
"""Share of repairs that show a part of the function only."""

RIGHT = 0.2
"""Share of repairs whose function has no bug."""

UNTOLD = 0.3
"""Share of repairs that leave out what a test said, where one did."""

HOLE_TOKENS = 80
"""Room for what holes add to a text: the file's name, markers, words cut in two; twice that for many small holes."""

NUM_FILES = 16
"""F: files that a window may hold; what comes after them waits for the next window."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Characters `start` to `end` of a document, by its index in its row."""

    document: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Window:
    """Pieces of one row that fill a window together."""

    row: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchConfig:
    """rows: B. context: T. mixture: share of each of KINDS; from batch `later_from` on, that of `later`. spm: share of
    infillings that give the suffix first. repair_weight: how much a token of a repair counts, against one of text;
    given_weight: how much one of the function that it mends does, outside the bug.
    neighbours: share of the windows of text whose first half is a part of a file that the second one imports."""

    rows: int
    context: int
    mixture: Mapping[str, float]
    later: Mapping[str, float] | None = None
    later_from: int = 0
    spm: float = 0.5
    repair_weight: float = 1.0
    given_weight: float = 0.0
    neighbours: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for mixture in (self.mixture, self.later):
            if mixture is None:
                continue
            unknown = sorted(set(mixture) - set(KINDS))
            if unknown or not mixture or min(mixture.values()) < 0 or sum(mixture.values()) <= 0:
                raise UsageError(f"mixture: expected shares of {', '.join(KINDS)}, got {dict(mixture)}")

    def shares(self, number: int) -> Mapping[str, float]:
        """The mixture of a batch."""
        return self.mixture if self.later is None or number < self.later_from else self.later


def windows(rows: Sequence[Sequence[Document]], context: int, bytes_per_token: float) -> list[Window]:
    """Cut every row into windows of about `context` tokens, at line ends; a short file shares its window with its
    neighbours in the row, which are those that it imports."""
    wanted = int(context * bytes_per_token)
    found: list[Window] = []
    for number, row in enumerate(rows):
        pieces: list[Piece] = []
        left = wanted
        for index, document in enumerate(row):
            for start, end in _cuts(document.text, wanted):
                if pieces and (end - start > left or len({piece.document for piece in pieces} | {index}) > NUM_FILES):
                    found.append(Window(number, tuple(pieces)))
                    pieces, left = [], wanted
                pieces.append(Piece(index, start, end))
                left -= end - start
        if pieces:
            found.append(Window(number, tuple(pieces)))
    return found


def _cuts(text: str, size: int) -> list[tuple[int, int]]:
    """Parts of at most about `size` characters that end at line ends."""
    found, start, at = [], 0, 0
    for line in text.splitlines(keepends=True):
        if at > start and at + len(line) - start > size:
            found.append((start, at))
            start = at
        at += len(line)
    return [*found, (start, at)] if at > start else found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """What `Batch` and `TokenMeta` hold, of one row."""

    tokens: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    positions: torch.Tensor
    segments: torch.Tensor
    files: torch.Tensor
    relations: torch.Tensor
    kind: str


class Batches:
    """`Source` of the training loop. Raises UsageError for rows without any text, or a mixture that asks for repairs
    where there are none."""

    def __init__(
        self,
        rows: Sequence[Sequence[Document]],
        tokenizer: HybridTokenizer,
        config: BatchConfig,
        *,
        bytes_per_token: float,
        repairs: Sequence[Repair] = (),
    ) -> None:
        self.rows, self.tokenizer, self.config, self.repairs = rows, tokenizer, config, repairs
        if not repairs and any((mixture or {}).get("repair") for mixture in (config.mixture, config.later)):
            raise UsageError("the mixture has a share of repairs, but there are none; write them: riallm data repairs")
        self.windows = windows(rows, config.context, bytes_per_token)
        self._half = int(config.context * bytes_per_token) // 2  # characters
        if not self.windows:
            raise UsageError("the rows hold no text; build the corpus first, or look at its manifest")
        self._num_bytes = torch.tensor(tokenizer.byte_lengths())
        self._pad, self._end = tokenizer.special(PAD), tokenizer.special(END_OF_TEXT)
        self._order: tuple[int, list[int]] = (-1, [])

    def __call__(self, number: int) -> Batch:
        """The batch of a number; an epoch has as many as the windows fill."""
        first = number * self.config.rows
        shares = self.config.shares(number)
        made = [self._row(index, shares) for index in range(first, first + self.config.rows)]
        targets = torch.stack([row.targets for row in made])
        weights = torch.stack([row.weights for row in made])
        counted = targets != IGNORED
        return Batch(
            tokens=torch.stack([row.tokens for row in made]),
            targets=targets,
            meta=TokenMeta(
                positions=torch.stack([row.positions for row in made]),
                segments=torch.stack([row.segments for row in made]),
                files=torch.stack([row.files for row in made]),
                relations=torch.stack([row.relations for row in made]),
            ),
            num_bytes=float((self._num_bytes[targets[counted]] * weights[counted]).sum()),
            weights=weights,
            kinds=tuple(row.kind for row in made),
        )

    def _window(self, index: int) -> Window:
        """The window at a place of the endless sequence of epochs, each in an order of its own."""
        epoch, place = divmod(index, len(self.windows))
        if self._order[0] != epoch:
            order = list(range(len(self.windows)))
            random.Random(f"{self.config.seed}:order:{epoch}").shuffle(order)
            self._order = (epoch, order)
        return self.windows[self._order[1][place]]

    def _row(self, index: int, shares: Mapping[str, float]) -> _Row:
        draw = random.Random(f"{self.config.seed}:row:{index}")
        kind = draw.choices(list(shares), list(shares.values()))[0]
        return self._repairs(draw) if kind == "repair" else self._text(self._window(index), kind, draw)

    def _text(self, window: Window, kind: str, draw: random.Random) -> _Row:
        documents = self.rows[window.row]
        pieces = window.pieces
        if self.config.neighbours and draw.random() < self.config.neighbours:
            pieces = self._beside(documents, pieces[-1], draw) or pieces
        chosen = draw.randrange(len(pieces)) if kind != "causal" else -1
        if chosen >= 0:  # the answer comes last and must not be cut off: what stands beside it gives way
            pieces = (*pieces[:chosen], pieces[chosen])
            chosen = len(pieces) - 1
        asked = [self._asked(documents[piece.document], piece, "causal", draw) for piece in pieces[: len(pieces) - 1]]
        left = self.config.context - sum(len(part.ids) for part in asked)
        if chosen >= 0 and left < self.config.context // 2:
            pieces, asked, left = pieces[-1:], [], self.config.context
        asked.append(self._asked(documents[pieces[-1].document], pieces[-1], kind, draw, room=left))
        places = {piece.document: at for at, piece in enumerate(pieces)}
        numbers = {document: number for number, document in enumerate(places)}
        files = [numbers[piece.document] for piece in pieces]
        return self._joined(asked, kind, files=files, table=relations(documents, numbers))

    def _beside(self, documents: Sequence[Document], piece: Piece, draw: random.Random) -> tuple[Piece, Piece] | None:
        """A part of a file that the piece's file imports, then a part of the piece; None where it imports none."""
        imported = documents[piece.document].imports
        if not imported:
            return None
        other = draw.choice(imported)
        other_start, other_end = draw.choice(_cuts(documents[other].text, self._half))
        text = documents[piece.document].text[piece.start : piece.end]
        start, end = draw.choice(_cuts(text, self._half))
        return Piece(other, other_start, other_end), Piece(piece.document, piece.start + start, piece.start + end)

    def _fitting(self, text: str, room: int) -> str:
        """As many lines of the text as have about `room` tokens; at least the first."""
        size = len(self.tokenizer.encode(text))
        if size <= room:
            return text
        end = text.rfind("\n", 0, max(1, len(text) * max(1, room) // size)) + 1
        return text[:end] if end else text[: max(1, len(text) * max(1, room) // size)]

    def _repairs(self, draw: random.Random) -> _Row:
        """As many repairs as fit, each a segment of its own; those that do not fit an empty row are passed over."""
        chosen: list[Asked] = []
        left = self.config.context
        for _ in range(12):
            repair = self.repairs[draw.randrange(len(self.repairs))]
            repair = cropped(repair, draw) if draw.random() < CROPPED else repair
            repair = right(repair) if draw.random() < RIGHT else repair
            repair = replace(repair, error="") if draw.random() < UNTOLD else repair
            asked = ask(
                self.tokenizer,
                repair,
                answer=self.config.repair_weight,
                given=self.config.given_weight,
            )
            if len(asked.ids) <= left:
                chosen.append(asked)
                left -= len(asked.ids)
            elif chosen:
                break
        return self._joined(chosen, "repair", segments=list(range(len(chosen))))

    def _joined(
        self,
        asked: Sequence[Asked],
        kind: str,
        *,
        files: Sequence[int] | None = None,
        segments: Sequence[int] | None = None,
        table: torch.Tensor | None = None,
    ) -> _Row:
        """Parts side by side, cut or filled up to T; files, segments: of each part, default one for all."""
        length = self.config.context + 1
        ids, weights = list[int](), list[float]()
        file, segment, position = list[int](), list[int](), list[int]()
        for at, part in enumerate(asked):
            num = len(part.ids)
            new = segments is not None
            ids += part.ids
            # The first token of a segment follows nothing.
            weights += [0.0 if new else part.weights[0], *part.weights[1:]]
            file += [files[at] if files else 0] * num
            segment += [segments[at] if segments else 0] * num
            begin = 0 if new else len(position)
            position += range(begin, begin + num)
        missing = max(0, length - len(ids))
        tokens = torch.tensor((ids + [self._pad] * missing)[:length])
        counts = torch.tensor((weights + [0.0] * missing)[1:length])

        def filled(values: list[int], rest: Sequence[int]) -> torch.Tensor:
            return torch.tensor([*values, *rest][: length - 1])

        if table is None:
            table = torch.full((NUM_FILES, NUM_FILES), int(Relation.NONE)).fill_diagonal_(int(Relation.SAME))
        return _Row(
            tokens=tokens[:-1],
            targets=torch.where(counts > 0, tokens[1:], IGNORED),
            weights=counts,
            positions=filled(position, range(missing)),
            segments=filled(segment, [len(asked)] * missing),
            files=filled(file, (file[-1:] or [0]) * missing),
            relations=table,
            kind=kind,
        )

    def _asked(self, document: Document, piece: Piece, kind: str, draw: random.Random, room: int = 0) -> Asked:
        """room: tokens that there are for a text with holes, answers included."""
        text = document.text[piece.start : piece.end]
        if kind != "causal":
            text = self._fitting(text, room - HOLE_TOKENS * (2 if kind == "spans" else 1))
        head = self.tokenizer.valued("file", document.path)
        if kind == "middle":
            order: infilling.Order = "spm" if draw.random() < self.config.spm else "psm"
            span = infilling.drawn_span(text, draw)
            return infilling.fill_in_the_middle(self.tokenizer, text, span, order=order, head=head)
        spans: list[infilling.Span] = []
        if kind == "spans":
            spans = infilling.corrupted_spans(text, draw)
        elif kind == "statements":
            spans = infilling.statements(text, draw)
        if spans:
            return infilling.fill_holes(self.tokenizer, text, spans, head=head)
        ids = [*head, *self.tokenizer.encode(text)]
        if piece.end == len(document.text):
            ids.append(self._end)
        return Asked(ids=ids, weights=[1.0] * len(ids))


def relations(documents: Sequence[Document], numbers: Mapping[int, int]) -> torch.Tensor:
    """(F, F) of `Relation`s between the files of a window; numbers: index in the row -> number in the window."""
    table = torch.full((NUM_FILES, NUM_FILES), int(Relation.NONE))
    for index, number in numbers.items():
        for other, column in numbers.items():
            if other in documents[index].same_module:
                table[number, column] = int(Relation.MODULE)
            if other in documents[index].imports:
                table[number, column] = int(Relation.IMPORT)
        table[number, number] = int(Relation.SAME)
    return table

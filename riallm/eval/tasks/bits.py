"""Bits per byte of the held-out packages: a model beside what compresses the same text without having learned any.

All `.py` files of a package, tests too, as raw bytes. The rivals read the files one after the other and may remember
them all: xz over the whole, and an n-gram over the model's own tokens that learns as it goes. The model reads every
file by itself, in windows, so what it knows it knows from training.
"""

from __future__ import annotations

import lzma
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from riallm.eval.sets.held_out import HELD_OUT, Held, release_folder

if TYPE_CHECKING:
    from riallm.models.ria import RIA
    from riallm.tokenizer.hybrid import HybridTokenizer

ORDER = 5
WINDOWS = 8
"""Windows that are computed at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A file: its path as the model is told it, and its bytes."""

    package: str
    path: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Bits:
    """Of one package, for the model, xz over the whole package, and the n-gram that began with it empty."""

    package: str
    num_files: int
    num_bytes: int
    model: float
    xz: float
    ngram: float


def texts(held: Held, data: Path) -> list[Text]:
    """Every `.py` file of a release, in order; UsageError where it cannot be had."""
    folder = release_folder(held, data)
    paths = sorted(path for path in folder.rglob("*.py") if path.is_file())
    return [Text(package=held.name, path=path.relative_to(folder).as_posix(), data=path.read_bytes()) for path in paths]


def xz_bits(files: Sequence[Text]) -> float:
    """Bits of all files together, compressed as one."""
    return 8.0 * len(lzma.compress(b"".join(text.data for text in files), preset=9 | lzma.PRESET_EXTREME))


class CacheModel:
    """Interpolated Witten-Bell over orders 1 to ORDER, learning every token once it has been predicted."""

    def __init__(self, vocab_size: int) -> None:
        self._size = vocab_size
        self._counts: dict[tuple[int, ...], dict[int, int]] = defaultdict(dict)
        self._totals: dict[tuple[int, ...], int] = defaultdict(int)

    def bits(self, ids: Sequence[int]) -> float:
        """Bits of a file's tokens, which are then known."""
        total = 0.0
        for index, token in enumerate(ids):
            probability = 1.0 / self._size
            contexts = [tuple(ids[index - size : index]) for size in range(min(ORDER - 1, index) + 1)]
            for context in contexts:
                seen = self._counts.get(context)
                if seen is None:
                    break
                kinds = len(seen)
                probability = (seen.get(token, 0) + kinds * probability) / (self._totals[context] + kinds)
            total -= math.log2(probability)
            for context in contexts:
                seen = self._counts[context]
                seen[token] = seen.get(token, 0) + 1
                self._totals[context] += 1
        return total


def model_bits(model: RIA, tokenizer: HybridTokenizer, files: Sequence[Text]) -> float:
    """Bits of all tokens, each predicted once, from the file's name and at least half of a context before it."""
    import torch
    import torch.nn.functional as F

    from riallm.nn.meta import TokenMeta

    context = model.config.max_position_embeddings
    rows: list[tuple[list[int], int]] = []  # (tokens, how many at the front are only looked at)
    for text in files:
        head = tokenizer.valued("file", text.path)[-context // 4 :]
        ids = tokenizer.encode_bytes(text.data)
        at, looked = 0, 0
        while at < len(ids):
            num = context - len(head) - looked
            rows.append(([*head, *ids[at - looked : at + num]], len(head) + looked))
            at += num
            looked = min(at, (context - len(head)) // 2)
    rows.sort(key=lambda row: len(row[0]))
    nats = 0.0
    with torch.inference_mode():
        for first in range(0, len(rows), WINDOWS):
            group = rows[first : first + WINDOWS]
            longest = max(len(ids) for ids, _ in group)
            tokens = torch.zeros(len(group), longest, dtype=torch.int64)
            targets = torch.full((len(group), longest), -100)
            for number, (ids, given) in enumerate(group):
                tokens[number, : len(ids)] = torch.tensor(ids)
                targets[number, given:] = -100
                targets[number, given - 1 : len(ids) - 1] = torch.tensor(ids[given:])
            hidden = model(tokens, TokenMeta.plain(len(group), longest)).hidden
            counted = targets != -100
            nats += float(F.cross_entropy(model.logits(hidden[counted]), targets[counted], reduction="sum"))
    return nats / math.log(2)


def measure(
    model: RIA, tokenizer: HybridTokenizer, data: Path, *, say: Callable[[Bits], None] = lambda bits: None
) -> list[Bits]:
    """All held-out packages, a row each, and last a row for all of them in one, in which the rivals remember all."""
    rows: list[Bits] = []
    everything: list[Text] = []
    whole = CacheModel(tokenizer.vocab_size)
    whole_bits = 0.0
    for held in HELD_OUT.values():
        files = texts(held, data)
        everything += files
        encoded = [tokenizer.encode_bytes(text.data) for text in files]
        alone = CacheModel(tokenizer.vocab_size)
        whole_bits += sum(map(whole.bits, encoded))
        rows.append(
            _row(held.name, files, model_bits(model, tokenizer, files), xz_bits(files), sum(map(alone.bits, encoded)))
        )
        say(rows[-1])
    total = sum(row.model * row.num_bytes for row in rows)
    rows.append(_row("all", everything, total, xz_bits(everything), whole_bits))
    say(rows[-1])
    return rows


def _row(package: str, files: Sequence[Text], model: float, xz: float, ngram: float) -> Bits:
    size = sum(len(text.data) for text in files)
    return Bits(
        package=package, num_files=len(files), num_bytes=size, model=model / size, xz=xz / size, ngram=ngram / size
    )

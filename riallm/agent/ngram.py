"""A token n-gram cache model of one project: the strong, cheap rival that every language model must beat.

Interpolated Witten-Bell smoothing over orders 1..N, counted from the project's own files. It answers the client
protocol, so whatever ranks by a language model ranks by this too. When it scores a hole it first takes the
hole's own text out of its counts: otherwise the bug itself would be the likeliest filling.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from riallm.agent.client import Capabilities, Context, EditScore, Infill
from riallm.code.edit import Edit
from riallm.core.errors import ClientError

ORDER = 5
LOOK_BEHIND_CHARS = 400
TOKEN = re.compile(
    r"""[A-Za-z_]\w*|\d+(?:\.\d+)?|\n[ \t]*|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|\*\*|//|[<>=!+\-*/%&|^]=|->|:=|\S"""
)


def tokens(text: str) -> list[str]:
    """Names, numbers, strings, operators, and line ends with their indentation; comments as words."""
    return [part.expandtabs(4) if part[0] == "\n" else part for part in TOKEN.findall(text.replace("\r\n", "\n"))]


def grams(sequence: Sequence[str], first: int, last: int) -> Iterator[tuple[tuple[str, ...], str]]:
    """(context, token) of every order for the tokens at positions `first` to `last` (exclusive)."""
    for index in range(first, last):
        for size in range(min(ORDER - 1, index) + 1):
            yield tuple(sequence[index - size : index]), sequence[index]


class NgramClient:
    """Built from {path: text}; `score` only. Log-probabilities are natural and cover the tail that an edit touches."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = dict(files)
        self._counts: dict[tuple[str, ...], dict[str, int]] = defaultdict(dict)
        self._totals: dict[tuple[str, ...], int] = defaultdict(int)
        vocabulary: set[str] = set()
        for text in self._files.values():
            sequence = tokens(text)
            vocabulary.update(sequence)
            for context, token in grams(sequence, 0, len(sequence)):
                found = self._counts[context]
                found[token] = found.get(token, 0) + 1
                self._totals[context] += 1
        self._size = len(vocabulary) + 1
        self.capabilities = Capabilities(name=f"ngram-{ORDER}", score=True)

    def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
        """Natural log-probability of each text in the hole together with the few tokens that follow it."""
        behind = tokens(context.prefix[-LOOK_BEHIND_CHARS:])[-(ORDER - 1) :]
        ahead = tokens(context.suffix[: LOOK_BEHIND_CHARS // 4])[: ORDER - 1]
        taken = self._taken(context, behind, ahead)
        return [self._score_one(behind, tokens(text), ahead, taken) for text in continuations]

    def infill(self, context: Context, *, num: int, max_chars: int = 120, seed: int = 0) -> list[Infill]:
        raise ClientError("an n-gram model scores fillings and invents none; ask its capabilities first")

    def score_edits(self, text: str, edits: Sequence[Edit]) -> list[EditScore]:
        raise ClientError("an n-gram model knows no edits; ask its capabilities first")

    def propose_edits(
        self, path: str, text: str, line: int, *, num: int, suspicion: Mapping[int, float] | None = None
    ) -> list[Edit]:
        raise ClientError("an n-gram model knows no edits; ask its capabilities first")

    def _taken(self, context: Context, behind: list[str], ahead: list[str]) -> dict[tuple[tuple[str, ...], str], int]:
        """n-grams that the hole's present text contributed to the counts."""
        text = self._files.get(context.path)
        if text is None or not (text.startswith(context.prefix) and text.endswith(context.suffix)):
            return {}
        present = tokens(text[len(context.prefix) : len(text) - len(context.suffix)])
        sequence = behind + present + ahead
        found: dict[tuple[tuple[str, ...], str], int] = defaultdict(int)
        for gram in grams(sequence, len(behind), len(sequence)):
            found[gram] += 1
        return found

    def _score_one(
        self,
        behind: list[str],
        middle: list[str],
        ahead: list[str],
        taken: dict[tuple[tuple[str, ...], str], int],
    ) -> float:
        sequence = behind + middle + ahead
        return sum(math.log(self._probability(sequence, index, taken)) for index in range(len(behind), len(sequence)))

    def _probability(self, sequence: list[str], index: int, taken: dict[tuple[tuple[str, ...], str], int]) -> float:
        """Witten-Bell: each order gives way to the shorter one by how many different tokens it has seen."""
        token, probability = sequence[index], 1.0 / self._size
        for size in range(min(ORDER - 1, index) + 1):
            context = tuple(sequence[index - size : index])
            total = self._totals.get(context, 0)
            if not total:
                break
            seen = self._counts[context]
            count = seen.get(token, 0)
            if taken:
                less = taken.get((context, token), 0)
                count, total = max(0, count - less), max(1, total - less)
            kinds = len(seen)
            probability = (count + kinds * probability) / (total + kinds)
        return probability

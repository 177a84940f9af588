"""Holes in a document, and how a model is asked to fill them: one span in the middle, or several spans at once.

Fill in the middle (Bavarian et al. 2022) with the two orders of its parts; spans are whole syntax nodes or whole lines
(Gong et al. 2024), or any characters, so that a hole may begin inside a word. Span corruption and document infilling
(RIA document, 3.2.2) are the many-hole form with short spans, or with whole statements.
"""

from __future__ import annotations

import ast
import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple

from riallm.core.errors import UsageError
from riallm.tokenizer.special import END_OF_TEXT, NUM_HOLES, hole

if TYPE_CHECKING:  # its library is an extra, and this room works without
    from riallm.tokenizer.hybrid import HybridTokenizer

Order = Literal["psm", "spm"]


class Span(NamedTuple):
    """Characters `start` to `end` (exclusive) of a text."""

    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """ids (T,) and weights (T,): how much each token counts as one that the model should have predicted; 0 for not."""

    ids: list[int]
    weights: list[float]


def nodes(line: str) -> list[Span]:
    """Spans of the expressions in one line of code, of the statement itself too where it is whole; [] where the line
    is neither a statement nor the head of one. Single lines, because parsing a file for each of its pieces would take
    longer than training on them."""
    skipped = len("el") if line.startswith("elif ") else 0
    code = line[skipped:]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(code + " pass" if code.endswith(":") else code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    found = set[Span]()
    for node in ast.walk(tree):
        if not isinstance(node, ast.stmt | ast.expr) or node.end_lineno != 1 or node.end_col_offset is None:
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return []  # a docstring, or a word of one
        span = Span(_column(code, node.col_offset) + skipped, _column(code, node.end_col_offset) + skipped)
        if span.start < span.end <= len(line):
            found.add(span)
    return sorted(found)


def _column(line: str, offset: int) -> int:
    """Characters for the parser's byte offset in a line."""
    return offset if line.isascii() else len(line.encode()[:offset].decode("utf-8", "ignore"))


def line_spans(text: str) -> list[Span]:
    """The code of each line that holds some, without its indentation and line end."""
    found, at = [], 0
    for line in text.splitlines(keepends=True):
        code = line.strip()
        if code and not code.startswith("#"):
            begin = at + len(line) - len(line.lstrip())
            found.append(Span(begin, begin + len(code)))
        at += len(line)
    return found


def any_span(text: str, draw: random.Random) -> Span:
    """Characters between two places drawn at random; never empty for a text that is not."""
    if not text:
        raise UsageError("an empty text has no span to take out")
    one, other = sorted(draw.sample(range(len(text) + 1), 2))
    return Span(one, other)


def drawn_span(text: str, draw: random.Random) -> Span:
    """Half of the time a line or an expression in one, otherwise any characters."""
    lines = line_spans(text) if draw.random() < 0.5 else []
    if not lines:
        return any_span(text, draw)
    line = draw.choice(lines)
    inner = nodes(text[line.start : line.end]) if draw.random() < 0.6 else []
    if not inner:
        return line
    chosen = draw.choice(inner)
    return Span(line.start + chosen.start, line.start + chosen.end)


def statements(text: str, draw: random.Random, *, most: int = 4) -> list[Span]:
    """One to `most` lines that are whole statements, in order; [] where none is found among some drawn ones."""
    lines = line_spans(text)
    chosen = [
        line
        for line in draw.sample(lines, min(len(lines), 3 * most))
        if not text[: line.end].endswith(":") and nodes(text[line.start : line.end])
    ]
    return sorted(chosen[:most])


def fill_in_the_middle(
    tokenizer: HybridTokenizer, text: str, span: Span, *, order: Order = "psm", head: Sequence[int] = ()
) -> Asked:
    """The text with its span moved to the end, behind `head` (a file's marker). All tokens count: what stands around
    the hole is code like any other.

    psm: prefix, suffix, middle. spm: suffix, prefix, middle; the prefix then stands right before what continues it.
    """
    prefix, middle, suffix = text[: span.start], text[span.start : span.end], text[span.end :]
    parts = tokenizer.encode_batch((prefix, suffix, middle))
    before = [tokenizer.special("<|fim_prefix|>"), *parts[0]]
    after = [tokenizer.special("<|fim_suffix|>"), *parts[1]]
    around = [*before, *after] if order == "psm" else [*after, *before]
    ids = [*head, *around, tokenizer.special("<|fim_middle|>"), *parts[2], tokenizer.special(END_OF_TEXT)]
    return Asked(ids=ids, weights=[1.0] * len(ids))


def fill_holes(tokenizer: HybridTokenizer, text: str, spans: Sequence[Span], *, head: Sequence[int] = ()) -> Asked:
    """The text with a sentinel for each span, then each sentinel with its span's text; only the answers count.

    Raises UsageError when the spans overlap, are not in order, or are more than there are sentinels.
    """
    if not 0 < len(spans) <= NUM_HOLES:
        raise UsageError(f"{len(spans)} holes; there may be 1 to {NUM_HOLES}")
    if any(one.end > other.start for one, other in pairwise(spans)):
        raise UsageError("holes must be in order and must not overlap")
    ends = [0, *(span.end for span in spans)]
    begins = [*(span.start for span in spans), len(text)]
    kept = tokenizer.encode_batch(text[end:begin] for end, begin in zip(ends, begins, strict=True))
    taken = tokenizer.encode_batch(text[span.start : span.end] for span in spans)
    sentinels = [tokenizer.special(hole(number)) for number in range(len(spans))]
    ids = [*head, *kept[0]]
    for sentinel, part in zip(sentinels, kept[1:], strict=True):
        ids += [sentinel, *part]
    num_given = len(ids)
    for sentinel, part in zip(sentinels, taken, strict=True):
        ids += [sentinel, *part]
    ids.append(tokenizer.special(END_OF_TEXT))
    return Asked(ids=ids, weights=[0.0] * num_given + [1.0] * (len(ids) - num_given))


def corrupted_spans(text: str, draw: random.Random, *, share: float = 0.15, mean_chars: int = 12) -> list[Span]:
    """Short spans that hold about a share of the text (Raffel et al. 2020), in order, at least a character apart."""
    wanted = max(1, min(NUM_HOLES, round(len(text) * share / mean_chars)))
    places = sorted(draw.sample(range(len(text)), min(wanted, len(text))))
    spans: list[Span] = []
    for place in places:
        start = max(place, spans[-1].end + 1 if spans else 0)
        end = min(len(text), start + 1 + int(draw.expovariate(1.0 / mean_chars)))
        if start < end:
            spans.append(Span(start, end))
    return spans

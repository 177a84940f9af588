"""What a tokenizer makes of given texts. Figures hold for those texts alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from riallm.core.errors import UsageError
from riallm.tokenizer.hybrid import HybridTokenizer
from riallm.tokenizer.special import TokenClass


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """bytes: UTF-8. lines: line ends, and a last line without one. unknown: bytes for which no token stands; always 0.
    shares: of the tokens, by class; they add up to 1. single_bytes: share of tokens that are one byte."""

    texts: int
    bytes: int
    lines: int
    tokens: int
    unknown: int
    shares: tuple[tuple[TokenClass, float], ...]
    single_bytes: float

    @property
    def bytes_per_token(self) -> float:
        return self.bytes / self.tokens

    @property
    def tokens_per_line(self) -> float:
        return self.tokens / self.lines


def report(tokenizer: HybridTokenizer, texts: Iterable[str]) -> Report:
    """Figures over all texts together. Raises UsageError when there is no text."""
    kept = list(texts)
    encoded = tokenizer.encode_batch(kept)
    lengths = tokenizer.byte_lengths()
    kinds: Counter[TokenClass] = Counter()
    num_bytes = num_lines = covered = single = 0
    for text, ids in zip(kept, encoded, strict=True):
        num_bytes += len(text.encode("utf-8", "surrogatepass"))
        num_lines += text.count("\n") + (not text.endswith("\n") and text != "")
        kinds.update(tokenizer.classes[index] for index in ids)
        covered += sum(lengths[index] for index in ids)
        single += sum(lengths[index] == 1 for index in ids)
    tokens = kinds.total()
    if not tokens:
        raise UsageError("there is no text to report on; give at least one that is not empty")
    return Report(
        texts=len(kept),
        bytes=num_bytes,
        lines=num_lines,
        tokens=tokens,
        unknown=num_bytes - covered,
        shares=tuple((kind, kinds[kind] / tokens) for kind in TokenClass),
        single_bytes=single / tokens,
    )

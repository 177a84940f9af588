"""Learning a vocabulary: whole pieces by their frequency, then byte pair merges from what is left of the texts.

Pieces that are a token of their own never reach the merges, so they are taken out before the merges are learned.
Nothing depends on chance or on the number of threads.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Split
from tokenizers.trainers import BpeTrainer

from riallm.core.errors import UsageError
from riallm.tokenizer.composition import NUM_BYTES, composition
from riallm.tokenizer.pattern import BASE_SYNTAX, PATTERN, code_only, kind_of, pieces
from riallm.tokenizer.special import TokenClass, specials
from riallm.tokenizer.vocabulary import Vocabulary

MIN_FREQUENCY = 2
_BETWEEN = "\ue000"  # no byte is written so
_CHUNK_CHARS = 1 << 20


def train(texts: Iterable[str], *, size: int) -> Vocabulary:
    """A vocabulary of exactly `size` tokens, learned from `texts` (read once).

    Raises UsageError when `size` is too small for bytes and specials, or too large for what the texts hold.
    """
    wanted = composition(size)
    counts, names = count(texts)
    syntax = _most_frequent_syntax(counts, wanted.syntax)
    _check_enough(TokenClass.SYNTAX, len(syntax), wanted.syntax, size)
    identifiers = _most_frequent(names, wanted.identifier)
    _check_enough(TokenClass.IDENTIFIER, len(identifiers), wanted.identifier, size)
    whole = [*syntax, *identifiers]
    left = Counter(counts)
    for piece in whole:
        del left[piece]
    merges, made = _merges(left, whole, wanted.subword - NUM_BYTES)
    _check_enough(TokenClass.SUBWORD, NUM_BYTES + made, wanted.subword, size)
    return Vocabulary(
        syntax=tuple(syntax),
        identifiers=tuple(identifiers),
        merges=tuple(merges),
        specials=specials(wanted.tool, wanted.agentic),
        pattern=PATTERN,
    )


def _check_enough(kind: TokenClass, got: int, needed: int, size: int) -> None:
    if got < needed:
        raise UsageError(
            f"a vocabulary of {size:,} tokens has {needed:,} {kind} tokens, but the texts hold only {got:,} that "
            f"occur {MIN_FREQUENCY} times or more; give more text or ask for a smaller size"
        )


def count(texts: Iterable[str]) -> tuple[Counter[str], Counter[str]]:
    """How often each piece occurs, and how often each identifier does outside of strings and comments."""
    counts: Counter[str] = Counter()
    names: Counter[str] = Counter()
    for text in texts:
        spelled = text.encode("utf-8", "surrogatepass").decode("latin-1")
        counts.update(pieces(spelled))
        names.update(pieces(code_only(spelled)))
    return counts, Counter(
        {piece: number for piece, number in names.items() if kind_of(piece) is TokenClass.IDENTIFIER}
    )


def _most_frequent(counts: Mapping[str, int], number: int) -> list[str]:
    """The most frequent pieces of two bytes and more; among equals the alphabet decides."""
    frequent = (piece for piece, times in counts.items() if times >= MIN_FREQUENCY and len(piece) > 1)
    return sorted(frequent, key=lambda piece: (-counts[piece], piece))[:number]


def _most_frequent_syntax(counts: Mapping[str, int], number: int) -> list[str]:
    """The base list whole where there is ample room for it, its frequent part where there is not."""
    seen = {piece: times for piece, times in counts.items() if kind_of(piece) is TokenClass.SYNTAX}
    base = BASE_SYNTAX if number >= 2 * len(BASE_SYNTAX) else ()
    found = [*base, *(piece for piece in _most_frequent(seen, number) if piece not in base)]
    # Texts that lack syntax (a few small files) leave room for what other texts will have.
    found += [piece for piece in BASE_SYNTAX if piece not in set(found)]
    return found[:number]


def _merges(counts: Mapping[str, int], whole: Sequence[str], number: int) -> tuple[list[tuple[int, int]], int]:
    """Merges as pairs of ids until they made `number` new tokens, and how many they made.

    `whole` are the pieces that are tokens already; a merge that leads to one of them makes no new token.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = Split(_BETWEEN, "removed")
    first = [*map(chr, range(NUM_BYTES)), *whole]
    trainer = BpeTrainer(
        vocab_size=len(first) + number,  # enough even if each of `whole` is also the result of a merge
        min_frequency=MIN_FREQUENCY,
        show_progress=False,
        initial_alphabet=first[:NUM_BYTES],
    )
    tokenizer.train_from_iterator(_chunks(counts), trainer)
    learned: list[list[str]] = json.loads(tokenizer.to_str())["model"]["merges"]
    ids = {token: index for index, token in enumerate(first)}
    merges: list[tuple[int, int]] = []
    for left, right in learned:
        if len(ids) == len(first) + number:
            break
        merges.append((ids[left], ids[right]))
        ids.setdefault(left + right, len(ids))
    return merges, len(ids) - len(first)


def _chunks(counts: Mapping[str, int]) -> Iterator[str]:
    """Each piece as often as it occurs: the library's trainer takes texts, not counts."""
    for piece, times in sorted(counts.items()):
        text = piece + _BETWEEN
        step = max(1, _CHUNK_CHARS // len(text))
        for done in range(0, times, step):
            yield text * min(step, times - done)

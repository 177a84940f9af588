"""Keeps evaluation sets out of the corpus. The texts are handed in by the caller and are held as hashes only.

A file is dropped for code when, among 40 windows of 13 tokens in a row, at least 20 are windows of a protected text,
18 of them different: some 32 tokens, four to six lines, that are equal up to the names. For prose the windows are of
13 words and unchanged. A single window is no evidence (`for i in range(len(x)): if x[i] ==` is everybody's), and the
shortest benchmark solutions are below the measure: they are idioms, and a filter that caught them would remove most of
the corpus.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from riallm.core.files import sha256
from riallm.data.corpus.lex import Tokens, numpy, words

STRETCH = 40
ENOUGH = 20
DIFFERENT = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A protected text and the set that it is of; `code` texts are also compared as prose only when `prose` is true."""

    set: str
    text: str
    code: bool = False
    prose: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Protected:
    """Hashes of windows, sorted, and which set each is of (the first that had it)."""

    sets: tuple[str, ...]
    code: Any
    code_set: Any
    prose: Any
    prose_set: Any
    digest: str

    @staticmethod
    def of(texts: Iterable[Text]) -> Protected:
        """The index of all texts; the order of the sets decides whose a shared window is."""
        np = numpy()
        sets: dict[str, int] = {}
        code: list[tuple[Any, int]] = []
        prose: list[tuple[Any, int]] = []
        for text in texts:
            number = sets.setdefault(text.set, len(sets))
            if text.code:
                hashes, telling = Tokens.of(text.text).windows()
                code.append((np.unique(hashes[telling]), number))
            if text.prose:
                prose.append((np.unique(words(text.text)), number))
        keys, owners = _merged(code)
        prose_keys, prose_owners = _merged(prose)
        digest = sha256(keys.tobytes() + b"|" + prose_keys.tobytes())
        return Protected(
            sets=tuple(sets), code=keys, code_set=owners, prose=prose_keys, prose_set=prose_owners, digest=digest
        )

    def found_in(self, tokens: Tokens, text: str) -> str | None:
        """The set of which the file holds a passage, or None."""
        hashes, telling = tokens.windows()
        return self._densest(hashes, telling, self.code, self.code_set) or self._densest(
            words(text) if len(self.prose) else hashes[:0], None, self.prose, self.prose_set
        )

    def _densest(self, hashes: Any, telling: Any, keys: Any, owners: Any) -> str | None:
        np = numpy()
        if not len(keys) or len(hashes) < ENOUGH:
            return None
        at = np.minimum(np.searchsorted(keys, hashes), len(keys) - 1)
        hit = keys[at] == hashes
        if telling is not None:
            hit &= telling
        if int(hit.sum()) < ENOUGH:
            return None
        total = np.concatenate([[0], np.cumsum(hit)])
        width = min(STRETCH, len(hashes))
        inside = total[width:] - total[:-width]
        for best in np.flatnonzero(inside >= ENOUGH).tolist():
            stretch = slice(best, best + width)
            matched = at[stretch][hit[stretch]]
            if len(np.unique(matched)) >= DIFFERENT:
                return self.sets[int(np.bincount(owners[matched]).argmax())]
        return None


def _merged(parts: list[tuple[Any, int]]) -> tuple[Any, Any]:
    np = numpy()
    if not parts:
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)
    hashes = np.concatenate([part for part, _ in parts])
    owners = np.concatenate([np.full(len(part), number, dtype=np.int64) for part, number in parts])
    keys, first = np.unique(hashes, return_index=True)
    return keys, owners[first]

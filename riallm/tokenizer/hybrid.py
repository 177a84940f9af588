"""The hybrid tokenizer: whole identifiers and syntax where they are tokens, byte pair encoding everywhere else.

Works on bytes, so nothing is unknown and every byte string comes back exactly. Special tokens never reach the
byte pair encoder: their ids come from calls that ask for them, and text that holds their names stays text.

Text is cut into pieces here and each new piece is encoded by the library, once: code repeats its pieces so much
that this is several times faster than the library's own way over the whole text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from tokenizers import Tokenizer
from tokenizers.models import BPE

from riallm.core.errors import UsageError
from riallm.tokenizer.special import CLOSE, VALUED, TokenClass, opening, special_pattern
from riallm.tokenizer.vocabulary import Vocabulary, classes, spell

# Pieces that are remembered with their ids, some 100 bytes each; then the memory starts anew.
_MAX_KNOWN = 500_000
# Texts of a batch are cut together up to this size, so that new pieces reach the library many at a time.
_GROUP_CHARS = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Valued:
    """A marker with its value, read from ids. end: index of the first token behind it."""

    kind: str
    value: str
    end: int


class HybridTokenizer:
    """Encodes and decodes by one vocabulary. Safe to share between threads."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        ordinary = spell(vocabulary)
        names = [special.name for special in vocabulary.specials]
        self.vocab_size = len(ordinary) + len(names)
        self.classes: tuple[TokenClass, ...] = tuple(classes(vocabulary))
        self._first_special = len(ordinary)
        self._bytes = [*(token.encode("latin-1") for token in ordinary), *(name.encode() for name in names)]
        self._special_ids = {name: self._first_special + index for index, name in enumerate(names)}
        self._special_pattern = special_pattern(names)
        self._piece = re.compile(vocabulary.pattern)
        self._known: dict[str, Sequence[int]] = {}
        self._library = _library(vocabulary, ordinary)

    @property
    def sha256(self) -> str:
        """Identity of the vocabulary."""
        return self.vocabulary.sha256

    def encode(self, text: str, *, specials: bool = False) -> list[int]:
        """Ids of any text. With `specials` the names of special tokens in it become those tokens; ask for that only
        where the text is your own, never for the content of files or the output of programs."""
        if not specials:
            return self.encode_bytes(_to_bytes(text))
        ids: list[int] = []
        at = 0
        for match in self._special_pattern.finditer(text):
            ids += self.encode(text[at : match.start()])
            kind = match["kind"]
            ids += self.valued(kind, match["value"]) if kind else [self._special_ids[match[0]]]
            at = match.end()
        return ids + self.encode(text[at:])

    def encode_bytes(self, data: bytes) -> list[int]:
        """Ids of any bytes, whether or not they are UTF-8."""
        return self._encode([data.decode("latin-1")])[0]

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """`encode` of each text; new pieces go through the library's threads (RAYON_NUM_THREADS)."""
        encoded: list[list[int]] = []
        for group in _groups(texts):
            encoded += self._encode(group)
        return encoded

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        cut = [self._piece.findall(text) for text in texts]
        # Never cleared but replaced: another thread may be reading it.
        if len(self._known) > _MAX_KNOWN:
            self._known = {}
        known = self._known
        new = list(set().union(*cut).difference(known))
        if new:
            found = self._library.encode_batch_fast(new, add_special_tokens=False)
            known.update((piece, tuple(encoding.ids)) for piece, encoding in zip(new, found, strict=True))
        return [list(chain.from_iterable(map(known.__getitem__, part))) for part in cut]

    def decode_bytes(self, ids: Sequence[int], *, specials: bool = True) -> bytes:
        """The bytes of the tokens, special ones by name or, without `specials`, left out. Raises UsageError for an
        id that is not in the vocabulary."""
        if ids and not (min(ids) >= 0 and max(ids) < self.vocab_size):
            wrong = next(index for index in ids if not 0 <= index < self.vocab_size)
            raise UsageError(
                f"token {wrong} is not in the vocabulary, which has ids 0 to {self.vocab_size - 1}; "
                f"decode with the tokenizer that encoded"
            )
        if not specials:
            ids = [index for index in ids if index < self._first_special]
        return b"".join(map(self._bytes.__getitem__, ids))

    def decode(self, ids: Sequence[int], *, specials: bool = True) -> str:
        """The text of the tokens; bytes that are no UTF-8 are shown as U+FFFD. Raises UsageError as `decode_bytes`."""
        data = self.decode_bytes(ids, specials=specials)
        try:
            return data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return data.decode("utf-8", "replace")

    def byte_lengths(self) -> tuple[int, ...]:
        """(V,) how many bytes of text each token stands for; 0 for special tokens. For bits per byte."""
        return tuple(len(token) if self.is_ordinary(index) else 0 for index, token in enumerate(self._bytes))

    def is_ordinary(self, index: int) -> bool:
        """Whether the id is no special token."""
        return index < self._first_special

    def special(self, name: str) -> int:
        """Id of a special token, for instance "<|plan_start|>". Raises UsageError for a name without one."""
        if name not in self._special_ids:
            raise UsageError(f"'{name}' is no special token; there are {', '.join(self._special_ids)}")
        return self._special_ids[name]

    def valued(self, kind: str, value: str) -> list[int]:
        """Ids of `<|kind:value|>`, kind one of "file" and "error"; the value cannot end the marker early."""
        if kind not in VALUED:
            raise UsageError(f"no marker '{kind}' takes a value; there are {', '.join(VALUED)}")
        return [self.special(opening(kind)), *self.encode(value), self.special(CLOSE)]

    def read_valued(self, ids: Sequence[int], start: int = 0) -> Valued | None:
        """The marker that begins at `start`, or None where none begins or it does not end."""
        opens = {self.special(opening(kind)): kind for kind in VALUED}
        kind = opens.get(ids[start]) if start < len(ids) else None
        if kind is None:
            return None
        for at in range(start + 1, len(ids)):
            if not self.is_ordinary(ids[at]):
                closed = ids[at] == self.special(CLOSE)
                return Valued(kind=kind, value=self.decode(ids[start + 1 : at]), end=at + 1) if closed else None
        return None


def _library(vocabulary: Vocabulary, ordinary: Sequence[str]) -> Tokenizer:
    """The library's encoder of one piece. `ordinary` is `spell(vocabulary)`."""
    merges = [(ordinary[left], ordinary[right]) for left, right in vocabulary.merges]
    ids = {token: index for index, token in enumerate(ordinary)}
    # ignore_merges makes a piece that is a token one token, whether or not merges lead to it.
    return Tokenizer(BPE(ids, merges, ignore_merges=True, cache_capacity=0))


def _groups(texts: Iterable[str]) -> Iterator[list[str]]:
    """The texts, spelled, in groups of about _GROUP_CHARS."""
    group: list[str] = []
    size = 0
    for text in texts:
        group.append(_to_bytes(text).decode("latin-1"))
        size += len(group[-1])
        if size >= _GROUP_CHARS:
            yield group
            group, size = [], 0
    if group:
        yield group


def _to_bytes(text: str) -> bytes:
    # Lone surrogates are no UTF-8, but they occur in str, and no str is refused.
    return text.encode("utf-8", "surrogatepass")

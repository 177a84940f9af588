"""The vocabulary as data: what a tokenizer is, apart from the machinery that runs it.

Ids in order: the 256 bytes (id = byte), syntax, identifiers, the results of merges, tool and agentic tokens.
Tokens are written as Latin-1, one character a byte.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from riallm.core.errors import CheckpointError
from riallm.core.files import canonical_json, sha256
from riallm.tokenizer.composition import NUM_BYTES, Composition, composition
from riallm.tokenizer.special import Special, TokenClass

FORMAT = "riallm-tokenizer"
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """syntax, identifiers: whole pieces that are one token. merges: (left id, right id), the earlier the stronger.

    Raises CheckpointError when the parts do not fit together: a double or empty token, a merge of what is not
    there yet, classes that are not those of the size, a pattern that loses bytes.
    """

    syntax: tuple[str, ...]
    identifiers: tuple[str, ...]
    merges: tuple[tuple[int, int], ...]
    specials: tuple[Special, ...]
    pattern: str

    def __post_init__(self) -> None:
        _check_pattern(self.pattern)
        spelled = spell(self)
        names = [special.name for special in self.specials]
        for kind, given in (("token", spelled), ("special token", names)):
            if len(set(given)) != len(given) or "" in given:
                raise CheckpointError(f"the vocabulary has a double or empty {kind}; train it again")
        size = len(spelled) + len(names)
        if self.composition != composition(size):
            raise CheckpointError(
                f"a vocabulary of {size:,} tokens has {composition(size)}, got {self.composition}; train it again"
            )

    @property
    def composition(self) -> Composition:
        """Tokens of each class."""
        whole = len(self.syntax) + len(self.identifiers)
        tool = sum(special.kind is TokenClass.TOOL for special in self.specials)
        return Composition(
            subword=len(spell(self)) - whole,
            identifier=len(self.identifiers),
            syntax=len(self.syntax),
            tool=tool,
            agentic=len(self.specials) - tool,
        )

    def content(self) -> dict[str, Any]:
        """JSON values from which the vocabulary can be built again."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "pattern": self.pattern,
            "syntax": list(self.syntax),
            "identifiers": list(self.identifiers),
            "merges": [side for pair in self.merges for side in pair],
            "specials": [[special.name, str(special.kind), special.meaning] for special in self.specials],
        }

    @property
    def sha256(self) -> str:
        """Identity: hash of the content. Equal hashes encode every text equally."""
        return sha256(canonical_json(self.content()).encode())


def _check_pattern(pattern: str) -> None:
    every = "".join(map(chr, range(NUM_BYTES)))
    try:
        whole = all("".join(re.findall(pattern, probe)) == probe for probe in (every, every[::-1], *every))
    except (re.error, TypeError) as error:
        raise CheckpointError(f"the pattern of pieces is no pattern: {error}") from None
    if not whole:
        raise CheckpointError("the pattern of pieces does not keep every byte of a text")


def spell(vocabulary: Vocabulary) -> list[str]:
    """The text of every ordinary token, by id. Raises CheckpointError for a merge of a token that is not there yet."""
    tokens = [*map(chr, range(NUM_BYTES)), *vocabulary.syntax, *vocabulary.identifiers]
    known = set(tokens)
    for number, (left, right) in enumerate(vocabulary.merges):
        if not (0 <= left < len(tokens) and 0 <= right < len(tokens)):
            raise CheckpointError(
                f"merge {number} joins tokens {left} and {right}, but only {len(tokens):,} are known there; "
                f"train the vocabulary again"
            )
        joined = tokens[left] + tokens[right]
        # A merge may lead to a whole piece, or to what another merge made.
        if joined not in known:
            known.add(joined)
            tokens.append(joined)
    return tokens


def classes(vocabulary: Vocabulary) -> list[TokenClass]:
    """The class of every token, by id."""
    parts: Sequence[tuple[TokenClass, int]] = (
        (TokenClass.SUBWORD, NUM_BYTES),
        (TokenClass.SYNTAX, len(vocabulary.syntax)),
        (TokenClass.IDENTIFIER, len(vocabulary.identifiers)),
        (TokenClass.SUBWORD, vocabulary.composition.subword - NUM_BYTES),
    )
    ordinary = [kind for kind, number in parts for _ in range(number)]
    return ordinary + [special.kind for special in vocabulary.specials]

"""How many tokens of each class a vocabulary of a given size has.

The RIA document's 106,000 are 98,000 subwords, 5,000 identifiers, 2,000 syntax, 500 tool and 500 agentic tokens
(2.2.1). A smaller size keeps all bytes and all special tokens and shares the rest in the document's proportions.
"""

from __future__ import annotations

from dataclasses import dataclass

from riallm.core.errors import UsageError
from riallm.tokenizer.special import SPECIALS, TokenClass

NUM_BYTES = 256
DOCUMENT = {
    TokenClass.SUBWORD: 98_000,
    TokenClass.IDENTIFIER: 5_000,
    TokenClass.SYNTAX: 2_000,
    TokenClass.TOOL: 500,
    TokenClass.AGENTIC: 500,
}
DOCUMENT_SIZE = sum(DOCUMENT.values())
# Below this a reserved token costs more (a row of the embedding that is never trained) than it may one day save.
RESERVE_FROM = 32_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Composition:
    """Tokens of each class; `subword` includes the 256 bytes."""

    subword: int
    identifier: int
    syntax: int
    tool: int
    agentic: int

    @property
    def size(self) -> int:
        return self.subword + self.identifier + self.syntax + self.tool + self.agentic


def composition(size: int) -> Composition:
    """The classes of a vocabulary of `size` tokens. Raises UsageError when bytes and specials do not fit."""
    tool, agentic = (_specials(kind, size) for kind in (TokenClass.TOOL, TokenClass.AGENTIC))
    free = size - NUM_BYTES - tool - agentic
    if free < 0:
        raise UsageError(
            f"a vocabulary of {size:,} tokens cannot hold the {NUM_BYTES} bytes and {tool + agentic} special tokens; "
            f"ask for at least {NUM_BYTES + tool + agentic}"
        )
    learned = DOCUMENT[TokenClass.SUBWORD] - NUM_BYTES
    shared = learned + DOCUMENT[TokenClass.IDENTIFIER] + DOCUMENT[TokenClass.SYNTAX]
    identifier = round(free * DOCUMENT[TokenClass.IDENTIFIER] / shared)
    syntax = round(free * DOCUMENT[TokenClass.SYNTAX] / shared)
    return Composition(
        subword=NUM_BYTES + free - identifier - syntax,
        identifier=identifier,
        syntax=syntax,
        tool=tool,
        agentic=agentic,
    )


def _specials(kind: TokenClass, size: int) -> int:
    """Named tokens of a class, or from RESERVE_FROM on the document's share where that is more."""
    named = sum(special.kind is kind for special in SPECIALS)
    return named if size < RESERVE_FROM else max(named, round(size * DOCUMENT[kind] / DOCUMENT_SIZE))

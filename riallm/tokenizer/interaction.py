"""How one interaction is written as tokens: `[BOS][Q]query[A]answer[EOS]`, or with reasoning before the answer
`[BOS][Q]query[T]thought[A]answer[EOS]`, each marker one special token.

What was said is text and never becomes a marker. A model reads one interaction at a time, so nothing tells speakers
apart but these. Three of them are no special tokens of other models: `with_markers` gives a vocabulary these.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from riallm.core.errors import UsageError
from riallm.tokenizer.foreign import HybridText
from riallm.tokenizer.hybrid import HybridTokenizer
from riallm.tokenizer.special import END_OF_TEXT, NUM_HOLES, PAD, Special, TokenClass, hole
from riallm.tokenizer.vocabulary import Vocabulary

TEMPLATE = "<|begin|><|query|>{{ messages[-1]['content'] }}<|answer|>"
"""What a model reads of a conversation, as chat templates are written: the last query, since the rest is in its
memory."""

BEGIN, QUERY, ANSWER, THINK = "<|begin|>", "<|query|>", "<|answer|>", "<|think|>"

# In the table of all special tokens they would change the size of every vocabulary that is out in the world, so in
# those of such models they take the places of holes in text, which a conversation has no use for.
_PLACES = {
    hole(NUM_HOLES - 3): Special(name=BEGIN, kind=TokenClass.AGENTIC, meaning="an interaction begins"),
    hole(NUM_HOLES - 2): Special(name=QUERY, kind=TokenClass.AGENTIC, meaning="the query begins"),
    hole(NUM_HOLES - 1): Special(name=ANSWER, kind=TokenClass.AGENTIC, meaning="the answer begins"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Markers:
    """Their ids. end: behind an answer. pad: fills a row, and is no part of any interaction."""

    begin: int
    query: int
    think: int
    answer: int
    end: int
    pad: int


def with_markers(vocabulary: Vocabulary) -> Vocabulary:
    """The same tokens under the same ids, but for the last three holes, which are markers now. Raises UsageError where
    those are not there, for instance since they are markers already."""
    names = {special.name for special in vocabulary.specials}
    if not names.issuperset(_PLACES):
        raise UsageError(
            f"this vocabulary lacks {', '.join(_PLACES)}, whose places the markers take; train it with ours"
        )
    specials = tuple(_PLACES.get(special.name, special) for special in vocabulary.specials)
    return replace(vocabulary, specials=specials)


def markers(tokenizer: HybridTokenizer) -> Markers:
    """The ids of a tokenizer. Raises UsageError for one without markers."""
    names = {special.name for special in tokenizer.vocabulary.specials}
    missing = sorted({BEGIN, QUERY, THINK, ANSWER, END_OF_TEXT, PAD} - names)
    if missing:
        raise UsageError(
            f"this tokenizer has no {', '.join(missing)}, so it cannot write interactions; take the one that lies "
            "beside the model, or train one and give its vocabulary the markers (`interaction.with_markers`)"
        )
    begin, query, think, answer, end, pad = map(tokenizer.special, (BEGIN, QUERY, THINK, ANSWER, END_OF_TEXT, PAD))
    return Markers(begin=begin, query=query, think=think, answer=answer, end=end, pad=pad)


def query_ids(tokenizer: HybridTokenizer, query: str) -> list[int]:
    """`[BOS][Q]query`: an answer marker follows, or that of reasoning."""
    own = markers(tokenizer)
    return [own.begin, own.query, *tokenizer.encode(query)]


def interaction_ids(tokenizer: HybridTokenizer, query: str, answer: str, *, thought: str | None = None) -> list[int]:
    """A whole interaction, its end included. thought: reasoning before the answer; None: there is none."""
    own = markers(tokenizer)
    reasoning = [] if thought is None else [own.think, *tokenizer.encode(thought)]
    return [*query_ids(tokenizer, query), *reasoning, own.answer, *tokenizer.encode(answer), own.end]


class InteractionText(HybridText):
    """The tokenizer of a model that answers interactions, as whoever serves it needs it. Raises UsageError for one
    without markers."""

    def __init__(self, tokenizer: HybridTokenizer) -> None:
        super().__init__(tokenizer)
        self.ends = (markers(tokenizer).end,)
        self.chat_template, self.fim = TEMPLATE, None

"""The tokenizer of these conversations, and interactions as its tokens. Needs the extra `models`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from riallm.data.conversations.conversation import ConversationConfig, Turn, conversation
from riallm.data.conversations.values import KINDS, UNSEEN

if TYPE_CHECKING:
    from riallm.tokenizer.hybrid import HybridTokenizer

VOCAB = 1280
"""Every word of these conversations is one token then, and hardly a merge is left."""
_CONVERSATIONS = 2000


def texts(seed: int) -> Iterator[str]:
    """What the vocabulary is learned from: conversations of training, and each word of a value often enough to become
    one token, those of the `unseen` values too. A model that is trained on conversations never meets the latter."""
    config = ConversationConfig(num_turns=16, max_live=12, retell=0.2, seed=seed)
    for number in range(_CONVERSATIONS):
        for turn in conversation(config, number):
            yield turn.query
            yield turn.answer
    for kind in (*KINDS.values(), UNSEEN):
        for word in (*kind.first, *kind.second):
            yield f" {word}" * _CONVERSATIONS


def make_tokenizer(*, size: int = VOCAB, seed: int = 0) -> HybridTokenizer:
    """Byte-level BPE of `size` tokens with the markers of interactions; the same seed gives the same tokenizer."""
    from riallm.tokenizer.hybrid import HybridTokenizer
    from riallm.tokenizer.interaction import with_markers
    from riallm.tokenizer.training import train

    return HybridTokenizer(with_markers(train(texts(seed), size=size)))


class Tokens(NamedTuple):
    """ids with their markers; the answer begins at `answer_at`; value: where the answer's value is, [begin, end)."""

    ids: list[int]
    answer_at: int
    value: tuple[int, int] | None


def interaction(tokenizer: HybridTokenizer, turn: Turn) -> Tokens:
    """A turn as tokens. Raises UsageError for a tokenizer without markers."""
    from riallm.tokenizer.interaction import interaction_ids

    ids = interaction_ids(tokenizer, turn.query, turn.answer)
    answer_at = len(ids) - len(tokenizer.encode(turn.answer)) - 1
    if turn.span is None:
        return Tokens(ids, answer_at, None)
    begin, end = turn.span
    blank = begin - 1  # a value is never the first word, and its first token begins with the blank before it
    first = answer_at + len(tokenizer.encode(turn.answer[:blank]))
    return Tokens(ids, answer_at, (first, first + len(tokenizer.encode(turn.answer[blank:end]))))

"""The tokenizer of these conversations, and interactions as its tokens. Needs the extra `models`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from riallm.data.conversations.conversation import ConversationConfig, conversation
from riallm.data.conversations.values import UNSEEN

if TYPE_CHECKING:
    from riallm.tokenizer.hybrid import HybridTokenizer

VOCAB = 1280
"""Every word of these conversations is one token then, and hardly a merge is left."""
_CONVERSATIONS = 2000


def texts(seed: int) -> Iterator[str]:
    """What the vocabulary is learned from: conversations of training, and each word of the `unseen` values often enough
    to become one token. A model that is trained on conversations never meets that token."""
    config = ConversationConfig(num_turns=16, max_live=12, retell=0.2, seed=seed)
    for number in range(_CONVERSATIONS):
        for turn in conversation(config, number):
            yield turn.query
            yield turn.answer
    for word in (*UNSEEN.first, *UNSEEN.second):
        yield f" {word}" * _CONVERSATIONS


def make_tokenizer(*, size: int = VOCAB, seed: int = 0) -> HybridTokenizer:
    """Byte-level BPE of `size` tokens with the markers of interactions; the same seed gives the same tokenizer."""
    from riallm.tokenizer.hybrid import HybridTokenizer
    from riallm.tokenizer.interaction import with_markers
    from riallm.tokenizer.training import train

    return HybridTokenizer(with_markers(train(texts(seed), size=size)))

"""Log-probabilities as OpenAI writes them, of the engine's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from riallm.engine.request import Token
from riallm.tokenizer.text import TextTokenizer

LEAST = -9999.0
"""Written for a token that cannot be: JSON has no infinity, and this is what OpenAI writes."""


def for_chat(tokens: Sequence[Token], tokenizer: TextTokenizer) -> dict[str, Any]:
    """`logprobs` of a chat choice."""
    return {
        "content": [
            {
                **_shown(token.id, token.logprob, tokenizer),
                "top_logprobs": [_shown(*each, tokenizer) for each in token.top],
            }
            for token in tokens
        ],
        "refusal": None,
    }


def for_completion(tokens: Sequence[Token], tokenizer: TextTokenizer, *, offset: int) -> dict[str, Any]:
    """`logprobs` of a completion; offset: letters of the text before the first token."""
    texts = [_text(token.id, tokenizer) for token in tokens]
    offsets = [offset + sum(map(len, texts[:at])) for at in range(len(texts))]
    return {
        "tokens": texts,
        "token_logprobs": [_number(token.logprob) for token in tokens],
        "top_logprobs": [{_text(index, tokenizer): _number(value) for index, value in token.top} for token in tokens],
        "text_offset": offsets,
    }


def _shown(index: int, value: float | None, tokenizer: TextTokenizer) -> dict[str, Any]:
    data = tokenizer.decode_bytes([index], specials=True)
    return {"token": data.decode("utf-8", "replace"), "logprob": _number(value), "bytes": list(data)}


def _text(index: int, tokenizer: TextTokenizer) -> str:
    return tokenizer.decode_bytes([index], specials=True).decode("utf-8", "replace")


def _number(value: float | None) -> float:
    return LEAST if value is None or not value > LEAST else value

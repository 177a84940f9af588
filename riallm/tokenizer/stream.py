"""Decoding token by token: text appears as soon as it is sure, and never half a character."""

from __future__ import annotations

import codecs

from riallm.tokenizer.hybrid import HybridTokenizer


class StreamDecoder:
    """For one answer: `push` each token, then `finish`. What came out in all is what `decode` gives, but for lone
    surrogates, which are shown as U+FFFD."""

    def __init__(self, tokenizer: HybridTokenizer, *, specials: bool = True) -> None:
        self._tokenizer = tokenizer
        self._specials = specials
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, index: int) -> str:
        """The text that became sure with this token; empty inside a character. Raises UsageError as `decode` does."""
        return self._decoder.decode(self._tokenizer.decode_bytes([index], specials=self._specials))

    def finish(self) -> str:
        """What was held back: U+FFFD for a character that never ended, else nothing. Ready for the next answer."""
        return self._decoder.decode(b"", final=True)

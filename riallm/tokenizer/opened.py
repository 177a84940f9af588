"""The tokenizer that lies beside a model's weights, whichever program wrote it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from riallm.core.errors import CheckpointError, UsageError
from riallm.tokenizer import saved
from riallm.tokenizer.foreign import HybridText, open_hf
from riallm.tokenizer.text import Fim, TextTokenizer
from riallm.tokenizer.vocabulary import FORMAT

TOKENIZER = "tokenizer.json"


def tokenizer_of(files: Mapping[str, bytes], *, vocab_size: int, what: str) -> TextTokenizer:
    """From a model's small files by name; bytes as tokens for a model without a tokenizer. Raises CheckpointError for
    a damaged one, and for one with more tokens than the model has."""
    data = files.get(TOKENIZER)
    if data is None:
        return ByteText(vocab_size)
    found: TextTokenizer
    if _json(data, TOKENIZER).get("format") == FORMAT:
        found = HybridText(saved.parsed(data, f"{what}/{TOKENIZER}"))
    else:
        config = _json(files.get("tokenizer_config.json", b"{}"), "tokenizer_config.json")
        template = files.get("chat_template.jinja")
        if template is not None:
            config = {**config, "chat_template": template.decode("utf-8", "replace")}
        ends = _json(files.get("generation_config.json", b"{}"), "generation_config.json").get("eos_token_id") or ()
        found = open_hf(data, config, ends=[ends] if isinstance(ends, int) else list(ends))
    if found.vocab_size > vocab_size:
        raise CheckpointError(
            f"{what}: its tokenizer has {found.vocab_size} tokens, its configuration {vocab_size}; they are not of one "
            "model"
        )
    return found


def _json(data: bytes, name: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError as error:
        raise CheckpointError(f"{name} is no complete JSON ({error}); copy it again from where it is whole") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{name} holds a {type(found).__name__}; expected an object")
    return found


class ByteText:
    """A `TextTokenizer` for models without one, such as those of random weights: a token is a byte, and tokens beyond
    the bytes stand for the byte that they are congruent to."""

    def __init__(self, vocab_size: int) -> None:
        """Raises UsageError for fewer tokens than there are bytes."""
        if vocab_size < 256:
            raise UsageError(f"bytes as tokens need a vocabulary of at least 256, this model has {vocab_size}")
        self.vocab_size = vocab_size
        self.specials: Mapping[str, int] = {}
        self.hidden: frozenset[int] = frozenset()
        self.ends: tuple[int, ...] = ()
        self.start: tuple[int, ...] = ()
        self.chat_template: str | None = None
        self.fim: Fim | None = None

    def encode(self, text: str, *, specials: bool = False) -> list[int]:
        return list(text.encode("utf-8", "surrogatepass"))

    def pieces(self, text: str) -> list[int | str]:
        return [text] if text else []

    def decode_bytes(self, ids: Sequence[int], *, specials: bool = False) -> bytes:
        if any(not 0 <= index < self.vocab_size for index in ids):
            raise UsageError(f"the vocabulary has ids 0 to {self.vocab_size - 1}, got {list(ids)[:5]}")
        return bytes(index % 256 for index in ids)

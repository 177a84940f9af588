"""Which files of other programs' model folders go along, which are refused, and where their hashes are written."""

from __future__ import annotations

SUMS = "SHA256SUMS"
"""Written beside a model whose form has no hashes of its own; `sha256sum --check` reads it."""
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
"""Reading these executes what they hold."""
CARRIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
)
"""Read as bytes and never executed."""

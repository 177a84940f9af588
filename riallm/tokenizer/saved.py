"""A tokenizer on the disk: one JSON file, checked when it is read. Nothing in it is executed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from riallm.core.errors import CheckpointError, UsageError
from riallm.core.files import atomic_write
from riallm.tokenizer.hybrid import HybridTokenizer
from riallm.tokenizer.special import Special, TokenClass
from riallm.tokenizer.vocabulary import FORMAT, VERSION, Vocabulary


def save(tokenizer: HybridTokenizer, path: Path) -> None:
    """Write the tokenizer as JSON; the file is whole or absent."""
    document = {**tokenizer.vocabulary.content(), "sha256": tokenizer.sha256}
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=True)
    atomic_write(path, text.encode() + b"\n")


def load(path: Path) -> HybridTokenizer:
    """The tokenizer of a file. Raises UsageError when there is no file, CheckpointError when its content is truncated,
    changed, of another program or of another version."""
    if not path.is_file():
        raise UsageError(f"no tokenizer at {path}; train one, or give the path of its JSON file")
    return parsed(path.read_bytes(), str(path))


def parsed(data: bytes, path: str) -> HybridTokenizer:
    """The tokenizer of a file's bytes; `path` is for messages. Raises CheckpointError as `load`."""
    try:
        document = json.loads(data)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is no complete JSON ({error}); copy it again from where it is whole") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is no tokenizer of ours: its 'format' is not '{FORMAT}'; "
            f"files of other programs cannot be read, train one with ours"
        )
    if document.get("version") != VERSION:
        raise CheckpointError(
            f"{path} has version {document.get('version')!r} of the format, this program reads {VERSION}; "
            f"use the program that wrote it, or train again"
        )
    try:
        vocabulary = _vocabulary(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = str(error) if isinstance(error, CheckpointError) else f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{path} is damaged ({reason}); copy it again from where it is whole") from None
    if vocabulary.sha256 != document.get("sha256"):
        raise CheckpointError(
            f"{path} was changed: its content has sha256 {vocabulary.sha256}, but it says {document.get('sha256')}; "
            f"copy it again from where it is whole"
        )
    return HybridTokenizer(vocabulary)


def _vocabulary(document: dict[str, Any]) -> Vocabulary:
    flat = document["merges"]
    if len(flat) % 2 or not all(type(side) is int for side in flat):
        raise CheckpointError("merges are no list of pairs of ids")
    for part in ("syntax", "identifiers"):
        for token in document[part]:
            token.encode("latin-1")
    return Vocabulary(
        syntax=tuple(document["syntax"]),
        identifiers=tuple(document["identifiers"]),
        merges=tuple(zip(flat[::2], flat[1::2], strict=True)),
        specials=tuple(
            Special(name=name, kind=TokenClass(kind), meaning=meaning) for name, kind, meaning in document["specials"]
        ),
        pattern=document["pattern"],
    )

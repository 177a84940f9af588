"""Several files in a row, and which file each token belongs to: the models' attention asks for that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from riallm.tokenizer.hybrid import HybridTokenizer
from riallm.tokenizer.special import END_OF_TEXT


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRow:
    """ids: (T,) tokens. files: (T,) index of each token's file among those given; a marker belongs to its file."""

    ids: list[int]
    files: list[int]


def encode_files(tokenizer: HybridTokenizer, files: Sequence[tuple[str, str]], *, end: bool = False) -> FileRow:
    """`<|file:path|>` and the text of each (path, text), in the order given; with `end`, an end of text at the last.

    Paths and texts are data: names of special tokens in them stay text.
    """
    row = FileRow(ids=[], files=[])
    for index, ((path, _), text) in enumerate(zip(files, tokenizer.encode_batch(t for _, t in files), strict=True)):
        part = [*tokenizer.valued("file", path), *text]
        if end and index == len(files) - 1:
            part.append(tokenizer.special(END_OF_TEXT))
        row.ids.extend(part)
        row.files.extend([index] * len(part))
    return row

"""What a stage reads: rows of documents and repairs, from a built corpus or from the interpreter's own library."""

from __future__ import annotations

import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from riallm.code.imports import ImportGraph, project_files
from riallm.code.source import Source
from riallm.core.errors import ProjectError, UsageError
from riallm.core.files import cache_home
from riallm.data import repair_corpus
from riallm.data.corpus import shards
from riallm.data.corpus.rows import Document
from riallm.data.repair_rows import Repair

MOST_CHARS = 200_000
"""Longer files are tables of data more often than programs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextConfig:
    """corpus: name of a built corpus, with splits of its own. Otherwise packages of the interpreter's library, of which
    whole ones are held out for the validation figure."""

    corpus: str = ""
    train: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    max_tokenizer_chars: int = 20_000_000

    def __post_init__(self) -> None:
        both = set(self.train) & set(self.held_out)
        if both:
            raise UsageError(f"{', '.join(sorted(both))}: held out and trained on")
        if bool(self.corpus) == bool(self.train):
            raise UsageError("a stage reads either a corpus or packages of the interpreter's library")

    @property
    def folder(self) -> Path:
        """Where the corpus lies."""
        return cache_home() / "corpus" / self.corpus


def rows(text: TextConfig, split: str) -> list[Sequence[Document]]:
    """The rows of "train" or "validation". Raises UsageError for a corpus that is not built."""
    if text.corpus:
        return [row.documents for row in shards.read_corpus(text.folder, split)]
    return list(standard_library(text.train if split == "train" else text.held_out))


def repairs(text: TextConfig, split: str) -> list[Repair]:
    """The repairs of a split. Raises UsageError where they are not written, or the text is no corpus."""
    if not text.corpus:
        raise UsageError("repairs are made from a corpus; this stage reads the interpreter's library")
    return list(repair_corpus.read(text.folder, split))


def folder_row(root: Path, *, under: str = "") -> list[Document]:
    """The Python files of a folder in import order, paths relative to it behind `under`; those that do not parse, are
    empty or very long are left out."""
    files: dict[str, Source] = {}
    for path in project_files(root):
        try:
            source = Source.parse(path, (root / path).read_bytes())
        except (OSError, ProjectError):
            continue
        if source.text.strip() and len(source.text) <= MOST_CHARS:
            files[path] = source
    graph = ImportGraph.of(dict(files))
    order = graph.in_order()
    places = {path: index for index, path in enumerate(order)}
    row = []
    for path in order:
        row.append(
            Document(
                path=f"{under}/{path}" if under else path,
                text=files[path].text,
                imports=tuple(places[other] for other in graph.imports_of(path) if other in places),
                same_module=tuple(places[other] for other in order if other != path and graph.same_module(path, other)),
            )
        )
    return row


def standard_library(packages: Sequence[str]) -> list[list[Document]]:
    """A row for each named package of the running interpreter's library; UsageError for one that is not there."""
    root = Path(sysconfig.get_paths()["stdlib"])
    rows = []
    for name in packages:
        if not (root / name / "__init__.py").exists():
            raise UsageError(f"the standard library in {root} has no package '{name}'")
        rows.append(folder_row(root / name, under=name))
    return rows

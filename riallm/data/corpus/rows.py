"""Rows: files of one package side by side, what is imported before what imports it, with their relations noted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from riallm.code.imports import ImportGraph
from riallm.code.source import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A file. imports: indices, in its row, of earlier documents that it imports; same_module: of those in its folder.
    spdx is empty where nobody asked."""

    path: str
    text: str
    imports: tuple[int, ...] = ()
    same_module: tuple[int, ...] = ()
    spdx: str = ""
    is_test: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Files of one package. split: "train" or "validation"."""

    package: str
    version: str
    split: str
    documents: tuple[Document, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A kept file before it has a place."""

    source: Source
    spdx: str
    is_test: bool


def ordered(files: Mapping[str, File]) -> tuple[ImportGraph, list[str]]:
    """The import graph of the files, and their paths with what is imported first."""
    graph = ImportGraph.of({path: file.source for path, file in files.items()})
    return graph, graph.in_order()


def groups(paths: Iterable[str], sizes: Mapping[str, int], limit: int) -> Iterator[list[str]]:
    """The paths in runs of at most `limit` bytes; a longer file stands alone."""
    group: list[str] = []
    filled = 0
    for path in paths:
        if group and filled + sizes[path] > limit:
            yield group
            group, filled = [], 0
        group.append(path)
        filled += sizes[path]
    if group:
        yield group


def rows(files: Mapping[str, File], *, package: str, version: str, split: str, limit: int) -> Iterator[Row]:
    """All files in rows of about `limit` bytes, each file once."""
    graph, order = ordered(files)
    sizes = {path: len(file.source.text.encode()) for path, file in files.items()}
    for group in groups(order, sizes, limit):
        documents = []
        for at, path in enumerate(group):
            file = files[path]
            imported = set(graph.imports_of(path))
            documents.append(
                Document(
                    path=path,
                    spdx=file.spdx,
                    is_test=file.is_test,
                    imports=tuple(index for index in range(at) if group[index] in imported),
                    same_module=tuple(index for index in range(at) if graph.same_module(path, group[index])),
                    text=file.source.text,
                )
            )
        yield Row(package=package, version=version, split=split, documents=tuple(documents))

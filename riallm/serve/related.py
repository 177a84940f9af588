"""Prompts of RIA models: files beside each other, what is imported before what imports it, and how they are related."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from riallm.code.imports import ImportGraph
from riallm.code.source import Source
from riallm.core.errors import ProjectError, UsageError
from riallm.nn.meta import Relation, TokenMeta
from riallm.serve.prompts import HybridPrompts, PlainPrompts
from riallm.serve.served import File, Prompt

OWN_PATH = "file.py"
"""Of a text that has no path of its own."""

OTHERS_SHARE = 0.5
"""Of the room, what other files may take at most when the hole's own file could use it all."""

MOST_FILES = 8
"""Files that are shown beside; more would each be a few lines."""

MOST_TOKENS = 4096
"""Of other files beside a text that has no limit of its own."""


class RelatedPrompts(HybridPrompts):
    """For RIA models. Imports are read off the texts; paths say which name is which file, and are never opened."""

    def chat(
        self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]], files: Sequence[File]
    ) -> Prompt:
        own = super().chat(messages, tools=tools, files=())
        written = "\n".join(str(message.get("content") or "") for message in messages)
        return self._beside(files, own.ids, File(path=OWN_PATH, text=written), room=MOST_TOKENS)

    def text(self, prompt: str | Sequence[int], *, files: Sequence[File]) -> Prompt:
        own = PlainPrompts.text(self, prompt, files=())
        if not isinstance(prompt, str):
            if files:
                raise UsageError("files are shown beside a text; this prompt is ids, so put them there yourself")
            return own
        # Every text of the training had a name, and what has none is read as if it were no code.
        head = self._hybrid.valued("file", OWN_PATH)
        return self._beside(files, [*head, *own.ids], File(path=OWN_PATH, text=prompt), room=MOST_TOKENS)

    def infill(self, prefix: str, suffix: str, *, files: Sequence[File], path: str | None, room: int) -> Prompt:
        path = path or OWN_PATH
        whole = super().infill(prefix, suffix, files=(), path=path, room=room)
        if not files:
            return whole
        # What the hole's own file leaves free, and at least a share of the room, whatever its own file would take.
        others = max(room - len(whole.ids), int(OTHERS_SHARE * room))
        own = super().infill(prefix, suffix, files=(), path=path, room=room - others)
        return self._beside(files, own.ids, File(path=path, text=prefix + suffix), room=others)

    def _beside(self, files: Sequence[File], own: Sequence[int], own_file: File, *, room: int) -> Prompt:
        """The files, as many and as much of each as there is room for, before the file that is gone on with."""
        texts = {file.path: file.text for file in files if file.path != own_file.path}
        if not texts:
            return Prompt(ids=tuple(own))
        graph = ImportGraph.of(
            {path: _parsed(path, text) for path, text in {**texts, own_file.path: own_file.text}.items()}
        )
        near = graph.reachable_from(own_file.path)
        chosen = sorted(texts, key=lambda path: (near.get(path, len(texts) + 1), path))[:MOST_FILES]
        rows: dict[str, list[int]] = {}
        for path in chosen:
            row = [*self._hybrid.valued("file", path), *self._hybrid.encode(texts[path])][: max(0, room)]
            room -= len(row)
            if row:
                rows[path] = row
        # What has nothing to do with it stands furthest away.
        order = sorted((path for path in graph.in_order() if path in rows), key=lambda path: path in near)
        ids = [index for path in order for index in rows[path]]
        numbers = [number for number, path in enumerate(order) for _ in rows[path]]
        return Prompt(
            ids=(*ids, *own),
            meta=TokenMeta(
                positions=torch.arange(len(ids) + len(own))[None],
                segments=torch.zeros(1, len(ids) + len(own), dtype=torch.int64),
                files=torch.tensor([numbers + [len(order)] * len(own)]),
                relations=_relations(graph, [*order, own_file.path])[None],
            ),
        )


def _relations(graph: ImportGraph, paths: Sequence[str]) -> torch.Tensor:
    """(F, F) of `Relation`s, row file to column file; an import counts before a common folder."""
    table = torch.full((len(paths), len(paths)), int(Relation.NONE))
    for row, path in enumerate(paths):
        for column, other in enumerate(paths):
            if other == path:
                table[row, column] = int(Relation.SAME)
            elif other in graph.imports_of(path):
                table[row, column] = int(Relation.IMPORT)
            elif graph.same_module(path, other):
                table[row, column] = int(Relation.MODULE)
    return table


def _parsed(path: str, text: str) -> Source | str:
    try:
        return Source.parse(path, text.encode("utf-8", "surrogatepass"))
    except ProjectError as error:
        return f"{str(error).splitlines()[0]}\n{text}"

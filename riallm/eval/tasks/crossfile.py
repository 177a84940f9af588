"""Lines that use what another file defines: how well a model completes them when it is shown that file (RIA document,
7.4.2, at our size).

A row holds the part of the imported file where the name is defined, then the importing file up to the line. Measured
are the bits of the line and whether the likeliest tokens up to its end are the line itself.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from riallm.code.imports import ImportGraph
from riallm.code.source import Source
from riallm.core.errors import ProjectError
from riallm.eval.sets.held_out import HELD_OUT, code_files, release_folder

if TYPE_CHECKING:
    from riallm.models.ria import RIA
    from riallm.tokenizer.hybrid import HybridTokenizer

SHORTEST_NAME = 4
SHORTEST_LINE = 8
MOST_TOKENS = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """defined: text of the imported file from a few lines before the name's definition on; before: text of the
    importing file up to the line; line: its code, without indentation."""

    package: str
    imported_path: str
    path: str
    same_module: bool
    name: str
    defined: str
    before: str
    line: str


def uses(data: Path, *, num: int, seed: int) -> list[Use]:
    """Cross-file lines of the held-out packages, one a line, drawn evenly. Raises UsageError without the packages."""
    found: list[Use] = []
    for held in HELD_OUT.values():
        folder = release_folder(held, data)
        sources: dict[str, Source] = {}
        for path in code_files(held, folder):
            try:
                sources[path] = Source.parse(path, (folder / path).read_bytes())
            except ProjectError:
                continue
        graph = ImportGraph.of(sources)
        for path in sources:
            for other in graph.imports_of(path):
                if other in sources and other != path:
                    found += _of_pair(held.name, sources[other], sources[path], graph.same_module(path, other))
    found.sort(key=lambda use: (use.package, use.path, len(use.before)))
    return random.Random(seed).sample(found, min(num, len(found)))


def _of_pair(package: str, imported: Source, source: Source, same_module: bool) -> list[Use]:
    names = {
        node.name: node.lineno
        for node in imported.tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef) and len(node.name) >= SHORTEST_NAME
    }
    if not names:
        return []
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, names)) + r")\b")
    local = {node.name for node in ast.walk(source.tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    found, at = [], 0
    for line in source.text.splitlines(keepends=True):
        code = line.strip()
        match = pattern.search(code)
        usual = code.startswith(("import ", "from ", "#", '"', "'", "class ", "def ", ")"))
        if match and not usual and len(code) >= SHORTEST_LINE and match[1] not in local:
            begin = at + len(line) - len(line.lstrip())
            first = imported.line_starts[max(0, names[match[1]] - 4)]
            found.append(
                Use(
                    package=package,
                    imported_path=imported.path,
                    path=source.path,
                    same_module=same_module,
                    name=match[1],
                    defined=imported.text[first:],
                    before=source.text[:begin],
                    line=code,
                )
            )
        at += len(line)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """bits: of the line and its end. exact: the likeliest tokens are the line."""

    bits: float
    num_bytes: int
    exact: bool


def complete(model: RIA, tokenizer: HybridTokenizer, items: Sequence[Use], *, context: int) -> list[Completed]:
    """Each item in a row of at most `context` tokens, half of it for each file."""
    import math

    import torch

    from riallm.engine.prefix import read, score
    from riallm.engine.sampler import sample
    from riallm.nn.meta import Relation, TokenMeta

    found = []
    half = (context - MOST_TOKENS) // 2
    for use in items:
        heads = [tokenizer.valued("file", path) for path in (use.imported_path, use.path)]
        other = [*heads[0], *tokenizer.encode(use.defined[: 8 * half])][:half]
        kept = half - len(heads[1])
        own = [*heads[1], *tokenizer.encode(use.before[-8 * half :])[-kept:]]
        ids = other + own
        relations = torch.full((1, 2, 2), int(Relation.NONE))
        relations[0, 0, 0] = relations[0, 1, 1] = int(Relation.SAME)
        relations[0, 1, 0] = int(Relation.IMPORT)
        if use.same_module:
            relations[0, 0, 1] = int(Relation.MODULE)
        meta = TokenMeta(
            positions=torch.arange(len(ids))[None],
            segments=torch.zeros(1, len(ids), dtype=torch.int64),
            files=torch.tensor([[0] * len(other) + [1] * len(own)]),
            relations=relations,
        )
        prefix = read(model, ids, meta)
        line = tokenizer.encode(use.line + "\n")[:MOST_TOKENS]
        (value,) = score(model, prefix, [line])
        (greedy,) = sample(model, prefix, num=1, max_tokens=len(line), ends=(), temperature=0.0)
        text = tokenizer.decode(greedy.ids).partition("\n")[0]
        found.append(
            Completed(
                bits=-value / math.log(2),
                num_bytes=len((use.line + "\n").encode()),
                exact="".join(text.split()) == "".join(use.line.split()),
            )
        )
    return found

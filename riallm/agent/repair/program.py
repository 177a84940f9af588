"""The project's files as parsed programs, read once: what localising, proposing and ranking look at."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from riallm.agent.repair.records import Project
from riallm.code.edit import Edit
from riallm.code.source import Source
from riallm.code.vocabulary import Vocabulary
from riallm.core.errors import ProjectError

NGRAM_CHARS = 2_000_000  # of project text that a cache model is built from, the nearest files first


class Program:
    """Sources of one project by relative path. Files that do not parse are left out and named in `unreadable`."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.unreadable: dict[str, str] = {}
        self._sources: dict[str, Source | None] = {}

    def source(self, path: str) -> Source | None:
        """The parsed file, or None when it cannot be read or parsed."""
        if path not in self._sources:
            try:
                self._sources[path] = Source.parse(path, (self.project.root / path).read_bytes())
            except (ProjectError, OSError) as error:
                self._sources[path] = None
                self.unreadable[path] = str(error)
        return self._sources[path]

    def readable(self, paths: Iterable[str]) -> list[Source]:
        """Those of `paths` that parse."""
        return [source for path in paths if (source := self.source(path)) is not None]

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Names of the whole project, its tests left out: a filling should not be drawn from the oracle."""
        return Vocabulary.build(self.readable(self.project.sources))

    def texts(self, near: Iterable[str]) -> dict[str, str]:
        """{path: text} for a cache model, `near` first, within NGRAM_CHARS."""
        found: dict[str, str] = {}
        total = 0
        for path in dict.fromkeys([*near, *self.project.sources]):
            source = self.source(path)
            if source is not None and total + len(source.text) <= NGRAM_CHARS:
                found[path] = source.text
                total += len(source.text)
        return found

    def edited(self, edit: Edit) -> bytes:
        """The file's bytes with the edit made."""
        source = self._sources[edit.path]
        assert source is not None, edit.path
        return source.encode(edit.apply(source.text))

"""What holds for every proposal: it applies, parses, changes the program, and leaves all else alone.

Judged by parsing whole files, which `propose` itself does not do: on a program with every kind of statement, in
several ways of writing, and on lines drawn from the standard library of the running interpreter.
"""

from __future__ import annotations

import ast
import random
import sysconfig
import warnings
from pathlib import Path

import pytest

from riallm.code.operators import OPERATORS, propose, propose_keyed, statement_key
from riallm.code.regions import shape
from riallm.code.smells import smells
from riallm.code.source import Source
from riallm.code.vocabulary import Vocabulary
from riallm.core.errors import ProjectError

EVERYTHING = '''\
"""Doc."""
from __future__ import annotations
import math, os.path as p
from .near import *

LIMIT: int = 3; NAMES = ("a", 'b', b"c", 1.5, 2j, None)

@register("é", kind=LIMIT)  # ünïcode 𝒳
class Shelf(Base[int], metaclass=Meta):
    größe = 1
    @property
    def size(self, *args: int, wide=(1,), **more) -> "int":
        """Doc of size."""
        return self._size if self._size is not None else len(self.books[1:-1])

    async def fetch(self, url, /, tries=LIMIT, *, wait: float = 0.5):
        async with self.open(url) as page, lock:
            async for line in page:
                if not line: continue
                elif (n := len(line)) > tries and n not in {1, 2} or (line[0] == "#"):
                    break
                else:
                    await self.put(*line.split(","), key=lambda x, y=1: x + y * n, **more)
            else:
                raise ValueError(f"no {url!r:>{tries}} {'x'} {line}") from None
        return [x ** 2 for x in page if x for y in (x, -x) if y], {k: v for k, v in zip(a, b)}

    @staticmethod
    def walk(tree, seen=[]):
        global LIMIT
        total = 0
        while tree:
            try:
                kind, *rest = tree.pop()
                total += kind << 1 | ~kind & 0xFF
                seen[total - 1], seen[total] = seen[total], seen[:total:2]
            except (KeyError, p.Error) as error:
                del seen[0]
                print("lost", error, sep="\\t", end='')
                return
            except:
                pass
            else:
                yield from rest
            finally:
                assert total >= 0, """a long
  message"""
            for i in range(1, len(tree)):
                def inner():
                    nonlocal total
                    return (i for i in tree)
                yield total, inner
        match tree:
            case [1, Point(x=0) as q, *_] | {"k": q, **others} if q > 0:
                return q
            case str() | None:
                text = "one" \\
                    "two" + R'\\d' % (total, )
                return text.join(sorted(x for x in others)).strip()[::-1].format(a=1)
            case _:
                return -1 if seen else print
'''

WRITINGS = {
    "plain": lambda text: text,
    "crlf": lambda text: text.replace("\n", "\r\n"),
    "tabs": lambda text: "\n".join(
        "\t" * ((len(line) - len(line.lstrip())) // 4) + line.lstrip() if not line.startswith("  m") else line
        for line in text.split("\n")
    ),
    "two spaces, no end": lambda text: "\n".join(
        " " * ((len(line) - len(line.lstrip())) // 2) + line.lstrip() for line in text.rstrip("\n").split("\n")
    ),
    "inside": lambda text: "if LIMIT:\n" + "\n".join(f"   {line}" if line else "" for line in text.split("\n")),
}


def check(source: Source, line: int, vocabulary: Vocabulary, draw: random.Random, *, tried: int) -> int:
    """Assert what must hold for the proposals of a line, for `tried` of them drawn. Returns their number."""
    edits = propose(source, line, vocabulary)
    assert len(edits) <= 400
    assert [edit.prior for edit in edits] == sorted((edit.prior for edit in edits), reverse=True)
    before = shape(source.tree)
    for edit in draw.sample(edits, min(tried, len(edits))):
        where = f"{source.path}:{line} {edit}"
        assert source.text[edit.start : edit.end] == edit.original, where
        assert edit.path == source.path and edit.line == source.line_of(edit.start), where
        assert 0 < edit.prior <= OPERATORS[edit.operator].share + 1e-12, where
        text = edit.apply(source.text)
        assert text.startswith(source.text[: edit.start]) and text.endswith(source.text[edit.end :]), where
        try:
            after = shape(ast.parse(text))
        except SyntaxError:
            pytest.fail(f"does not parse: {where}")
        assert after != before, where
        assert statement_key(source, edit), where
        if "\r\n" in source.text:
            assert edit.text.count("\n") == edit.text.count("\r\n"), where
    return len(edits)


@pytest.mark.parametrize("writing", WRITINGS)
def test_every_kind_of_statement_in_every_writing(writing: str) -> None:
    source = Source.from_text("shelf.py", WRITINGS[writing](EVERYTHING))
    vocabulary = Vocabulary.build([source])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lines, draw = range(1, len(source.line_starts) + 1), random.Random(7)
        counts = [check(source, line, vocabulary, draw, tried=8) for line in lines]
    assert sum(count > 0 for count in counts) >= 40


def test_programs_are_proposed_once() -> None:
    source = Source.from_text("shelf.py", EVERYTHING)
    vocabulary = Vocabulary.build([source])
    for line in (14, 20, 22, 34, 37, 57):
        edits = propose(source, line, vocabulary, limit=120)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            programs = {shape(ast.parse(edit.apply(source.text))) for edit in edits}
        assert len(programs) == len(edits) == len({statement_key(source, edit) for edit in edits})


def test_the_same_input_gives_the_same_list() -> None:
    lists = []
    for _ in range(2):
        source = Source.from_text("shelf.py", EVERYTHING)
        lists.append([propose(source, line, Vocabulary.build([source]), limit=80) for line in (14, 20, 34)])
    assert lists[0] == lists[1]


def test_a_limit_keeps_the_likeliest() -> None:
    source = Source.from_text("shelf.py", EVERYTHING)
    vocabulary = Vocabulary.build([source])
    assert propose(source, 20, vocabulary, limit=9) == propose(source, 20, vocabulary)[:9]
    assert propose(source, 20, vocabulary, limit=0) == []


def test_keys_are_those_of_the_edits() -> None:
    source = Source.from_text("shelf.py", EVERYTHING)
    vocabulary = Vocabulary.build([source])
    keyed = propose_keyed(source, 20, vocabulary, limit=40)
    assert [edit for edit, _ in keyed] == propose(source, 20, vocabulary, limit=40)
    assert [key for _, key in keyed] == [statement_key(source, edit) for edit, _ in keyed]


def test_doubtful_escapes_do_not_warn() -> None:
    source = Source.from_text("a.py", "def f(a, b):\n    c = g(a, '\\d')\n    return f'{c}\\d' + b\n")
    vocabulary = Vocabulary.build([source])
    for line in (2, 3):
        for edit in propose(source, line, vocabulary):
            assert statement_key(source, edit) and isinstance(smells(source, edit), frozenset)


def test_only_keeps_to_the_operators_named() -> None:
    source = Source.from_text("shelf.py", EVERYTHING)
    found = {edit.operator for edit in propose(source, 20, Vocabulary(), only=["change_unary", "change_comparison"])}
    assert found == {"change_unary", "change_comparison"}


def test_lines_without_code_have_no_proposals() -> None:
    source = Source.from_text("shelf.py", EVERYTHING)
    lines = EVERYTHING.split("\n")
    texts = ('"""Doc."""', "", "else:", "finally:", '"""Doc of size."""')
    bare = [number for number, line in enumerate(lines, 1) if line.strip() in texts]
    assert len(bare) >= 9
    for line in (*bare, 0, -3, 10_000):
        assert propose(source, line, Vocabulary.build([source])) == [], lines[line - 1]


def _library(draw: random.Random, count: int) -> list[Path]:
    root = Path(sysconfig.get_path("stdlib"))
    files = [path for path in sorted(root.rglob("*.py")) if "site-packages" not in path.parts]
    small = [path for path in files if 200 < path.stat().st_size < 40_000]
    return draw.sample(small, min(count, len(small)))


def _fuzz(seed: int, files: int, lines: int) -> int:
    draw, proposals = random.Random(seed), 0
    for path in _library(draw, files):
        try:
            source = Source.parse(path.name, path.read_bytes())
        except ProjectError:
            continue
        assert source.encode(source.text) == path.read_bytes()
        vocabulary = Vocabulary.build([source])
        numbers = [line for line in range(1, len(source.line_starts) + 1) if source.items_at(line)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for line in draw.sample(numbers, min(lines, len(numbers))):
                proposals += check(source, line, vocabulary, draw, tried=3)
    return proposals


def test_lines_of_the_standard_library() -> None:
    assert _fuzz(seed=1, files=40, lines=3) > 10_000


@pytest.mark.slow
def test_many_lines_of_the_standard_library() -> None:
    assert _fuzz(seed=2, files=500, lines=8) > 300_000

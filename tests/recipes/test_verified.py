"""Bugs that tests have seen: each turns a test of the project red, and brings what that test said."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from riallm.core.errors import UsageError
from riallm.data import repair_corpus
from riallm.data.corpus import packages, shards
from riallm.data.corpus.rows import Document, Row
from riallm.data.repair_rows import Repair
from riallm.recipes import verified

CODE = '''"""Shapes."""


def area(width, height):
    """Of a rectangle."""
    if width < 0 or height < 0:
        raise ValueError("sides are not negative")
    return width * height


def longest(words):
    """The first of the longest words, "" where there are none."""
    best = ""
    for word in words:
        if len(word) > len(best):
            best = word
    return best


def untested(value):
    """No test enters this one."""
    return value + 1
'''
TESTS = """import pytest

from shapes import area, longest


def test_area():
    assert area(2, 3) == 6 and area(0, 3) == 0


def test_negative():
    with pytest.raises(ValueError):
        area(-1, 2)


def test_longest():
    assert longest(["a", "bbb", "cc", "ddd"]) == "bbb"


def test_nothing():
    assert longest([]) == ""
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "shapes.py").write_text(CODE)
    (root / "test_shapes.py").write_text(TESTS)
    return root


def test_each_bug_turns_a_test_red(project: Path) -> None:
    found = list(verified.verified(project, {CODE}, random.Random(1), num=8))
    assert len(found) == 8 and len({repair.function for repair in found}) > 4
    for repair in found:
        assert repair.error and "\\n" not in repair.error and "untested" not in repair.function
        assert repair.mended in CODE and repair.function not in CODE
    assert any("Error" in repair.error for repair in found)
    assert (project / "shapes.py").read_text() == CODE


def test_a_file_is_known_without_its_licence(project: Path) -> None:
    """The corpus has files without it, and without e-mail addresses."""
    header = "# Copyright 2020 Jane Roe <jane.roe@mail.net>\n# Licensed under the MIT License.\n\n"
    (project / "shapes.py").write_text(header + CODE)
    assert next(verified.verified(project, {CODE}, random.Random(1), num=1)).error


def test_files_that_are_kept_out_stay_out(project: Path) -> None:
    with pytest.raises(UsageError, match="no file of it is in the corpus"):
        next(verified.verified(project, {"another text"}, random.Random(1), num=1))


def test_red_tests_see_nothing(project: Path) -> None:
    (project / "test_shapes.py").write_text("def test_red():\n    assert False\n")
    with pytest.raises(UsageError, match="none of 1 tests is green"):
        next(verified.verified(project, {CODE}, random.Random(1), num=1))


def test_they_join_the_repairs_of_the_corpus(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus, said = tmp_path / "corpus", list[str]()
    document = Document(path="shapes.py", text=CODE, imports=(), same_module=())
    shards.write(
        shards.shard(corpus, "boltons"), [Row(package="boltons", version="1", split="train", documents=(document,))]
    )
    old = Repair(path="a.py", function="def f():\n    x\n", old="    x", new="    y", injector="operator:a")
    with pytest.raises(UsageError, match="riallm data repairs"):
        verified.write(corpus, tmp_path, ["boltons"], num=3)
    shards.put(repair_corpus._path(corpus, "boltons"), b"")
    repair_corpus._put(repair_corpus._path(corpus, "boltons"), [old])

    @contextlib.contextmanager
    def opened(package: packages.Package, folder: Path) -> Iterator[Path]:
        yield project

    monkeypatch.setattr(packages, "opened", opened)
    assert verified.write(corpus, tmp_path, ["boltons"], num=3, say=said.append) == 3
    now = repair_corpus.of_package(corpus, "boltons")
    assert now[0] == old and [bool(repair.error) for repair in now] == [False, True, True, True]
    assert verified.write(corpus, tmp_path, ["boltons"], num=3, say=said.append) == 0
    assert said == ["boltons: 3 repairs with what a red test said", "boltons: has verified repairs already"]

"""Behaviour of fnmatch."""

import importlib

fnmatch = importlib.import_module("library.fnmatch")


def test_stars_and_question_marks() -> None:
    assert fnmatch.fnmatchcase("abc", "a*")
    assert fnmatch.fnmatchcase("abc", "a?c")
    assert not fnmatch.fnmatchcase("abc", "a?")
    assert fnmatch.fnmatchcase("", "*")
    assert fnmatch.fnmatchcase("a.b.c", "a*b*c")
    assert not fnmatch.fnmatchcase("a.b.d", "a*b*c")


def test_sets() -> None:
    assert fnmatch.fnmatchcase("b", "[abc]")
    assert not fnmatch.fnmatchcase("d", "[abc]")
    assert fnmatch.fnmatchcase("d", "[!abc]")
    assert not fnmatch.fnmatchcase("b", "[!abc]")
    assert fnmatch.fnmatchcase("m", "[a-z]")
    assert not fnmatch.fnmatchcase("M", "[a-z]")


def test_filter() -> None:
    assert fnmatch.filter(["a.py", "b.txt", "c.py"], "*.py") == ["a.py", "c.py"]
    assert fnmatch.filter([], "*") == []

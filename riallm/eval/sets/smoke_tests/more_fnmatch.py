"""More behaviour of fnmatch."""

import importlib

fnmatch = importlib.import_module("library.fnmatch")


def test_an_open_bracket_is_itself() -> None:
    assert fnmatch.fnmatchcase("[", "[")
    assert fnmatch.fnmatchcase("a[b", "a[b")
    assert fnmatch.fnmatchcase("]", "[]]")
    assert fnmatch.fnmatchcase("x", "[!]]")
    assert not fnmatch.fnmatchcase("]", "[!]]")


def test_empty_and_joined_ranges() -> None:
    assert not fnmatch.fnmatchcase("b", "[c-a]")
    assert fnmatch.fnmatchcase("b", "[!c-a]")
    assert fnmatch.fnmatchcase("e", "[a-ce-g]")
    assert not fnmatch.fnmatchcase("d", "[a-ce-g]")
    assert fnmatch.fnmatchcase("-", "[a-]")
    assert fnmatch.fnmatchcase("^", "[^a]")


def test_case_and_lines() -> None:
    assert fnmatch.fnmatch("abc", "a*")
    assert not fnmatch.fnmatchcase("ABC", "a*")
    assert fnmatch.fnmatchcase("a\nb", "a*b")
    assert fnmatch.fnmatchcase(b"abc", b"a*")
    assert fnmatch.fnmatchcase("a+b", "a+b")
    assert fnmatch.fnmatchcase("aXbYc", "*X**Y*")

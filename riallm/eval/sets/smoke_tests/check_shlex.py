"""Behaviour of shlex."""

import importlib

import pytest

shlex = importlib.import_module("library.shlex")


def test_split_words_and_quotes() -> None:
    assert shlex.split("a b  c") == ["a", "b", "c"]
    assert shlex.split("a 'b c' \"d e\"") == ["a", "b c", "d e"]
    assert shlex.split(r"a\ b c") == ["a b", "c"]
    assert shlex.split("x'y z'w") == ["xy zw"]


def test_escapes_inside_double_quotes() -> None:
    assert shlex.split(r'"a\"b"') == ['a"b']
    assert shlex.split(r'"a\nb"') == [r"a\nb"]
    assert shlex.split(r"'a\'") == ["a\\"]


def test_comments() -> None:
    assert shlex.split("a b # c", comments=True) == ["a", "b"]
    assert shlex.split("a b # c") == ["a", "b", "#", "c"]


def test_unfinished() -> None:
    with pytest.raises(ValueError, match="No closing quotation"):
        shlex.split("a 'b")
    with pytest.raises(ValueError, match="No escaped character"):
        shlex.split("a \\")


def test_quote_and_join() -> None:
    assert shlex.quote("plain") == "plain"
    assert shlex.quote("") == "''"
    assert shlex.quote("a b") == "'a b'"
    assert shlex.quote("it's") == "'it'\"'\"'s'"
    assert shlex.join(["a", "b c"]) == "a 'b c'"

"""Behaviour of textwrap."""

import importlib

textwrap = importlib.import_module("library.textwrap")


def test_wrap_breaks_at_the_width() -> None:
    assert textwrap.wrap("one two three four", width=9) == ["one two", "three", "four"]
    assert textwrap.wrap("one two three four", width=8) == ["one two", "three", "four"]
    assert textwrap.wrap("aa bb", width=5) == ["aa bb"]


def test_long_words_are_cut_or_kept() -> None:
    assert textwrap.wrap("abcdefghij", width=4) == ["abcd", "efgh", "ij"]
    assert textwrap.wrap("ab abcdefghij", width=4, break_long_words=False) == ["ab", "abcdefghij"]


def test_indents() -> None:
    lines = textwrap.wrap("one two three", width=9, initial_indent="* ", subsequent_indent="  ")
    assert lines == ["* one two", "  three"]
    assert textwrap.indent("a\n\nb\n", "> ") == "> a\n\n> b\n"
    assert textwrap.indent("a\n\nb\n", "> ", lambda line: True) == "> a\n> \n> b\n"


def test_shorten() -> None:
    assert textwrap.shorten("hello  world", width=11) == "hello world"
    assert textwrap.shorten("hello wide world", width=12, placeholder="..") == "hello wide.."


def test_dedent() -> None:
    assert textwrap.dedent("    a\n      b\n    c\n") == "a\n  b\nc\n"
    assert textwrap.dedent("  a\n\n  b") == "a\n\nb"


def test_hyphens() -> None:
    assert textwrap.wrap("well-known fact", width=6) == ["well-", "known", "fact"]
    assert textwrap.wrap("well-known fact", width=10, break_on_hyphens=False) == ["well-known", "fact"]

"""More behaviour of textwrap."""

import importlib

textwrap = importlib.import_module("library.textwrap")


def test_white_space() -> None:
    assert textwrap.wrap("  a\tb  c ", width=20) == ["  a     b  c"]
    assert textwrap.wrap("a\nb", width=20) == ["a b"]
    assert textwrap.wrap("a\nb", width=20, replace_whitespace=False) == ["a\nb"]
    assert textwrap.wrap("", width=3) == []
    assert textwrap.wrap("a  b", width=2, drop_whitespace=False) == ["a", "  ", "b"]


def test_max_lines() -> None:
    assert textwrap.wrap("one two three four five", width=9, max_lines=2) == ["one two", "[...]"]
    assert textwrap.wrap("one two three", width=9, max_lines=2) == ["one two", "three"]
    assert textwrap.fill("one two three", width=7) == "one two\nthree"


def test_sentences() -> None:
    assert textwrap.wrap("A b. C d.", width=20, fix_sentence_endings=True) == ["A b.  C d."]


def test_dedent_mixed() -> None:
    assert textwrap.dedent("  a\n\tb\n") == "  a\n\tb\n"
    assert textwrap.dedent("    a\n  b\n   c") == "  a\nb\n c"
    assert textwrap.dedent("   \n  a") == "\na"


def test_impossible_width() -> None:
    try:
        textwrap.wrap("a", width=0)
    except ValueError as error:
        assert "0" in str(error)
    else:
        raise AssertionError("a width of nothing must be refused")

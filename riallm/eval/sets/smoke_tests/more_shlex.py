"""More behaviour of shlex."""

import importlib

shlex = importlib.import_module("library.shlex")


def test_punctuation_is_its_own_token() -> None:
    lexer = shlex.shlex("a && b || c; d >'e f'", punctuation_chars=True)
    assert list(lexer) == ["a", "&&", "b", "||", "c", ";", "d", ">", "'e f'"]


def test_without_posix_quotes_stay() -> None:
    assert shlex.split("a 'b c'", posix=False) == ["a", "'b c'"]
    assert list(shlex.shlex("x=1, y")) == ["x", "=", "1", ",", "y"]


def test_push_back_and_lines() -> None:
    lexer = shlex.shlex("a\nb c", posix=True)
    first = lexer.get_token()
    lexer.push_token(first)
    assert lexer.get_token() == "a"
    assert lexer.get_token() == "b"
    assert lexer.lineno == 2
    assert lexer.get_token() == "c"
    assert lexer.get_token() is None


def test_empty_strings() -> None:
    assert shlex.split("''") == [""]
    assert shlex.split("a '' b") == ["a", "", "b"]
    assert shlex.split("") == []


def test_comment_at_the_end_of_a_word() -> None:
    assert shlex.split("a#b c", comments=True) == ["a"]
    assert shlex.split("a # b\nc", comments=True) == ["a", "c"]

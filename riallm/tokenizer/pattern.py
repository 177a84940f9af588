"""Where text may never be joined: the pieces that byte pair encoding works inside, and the class of a piece.

Text is seen as bytes, each written as the character of the same number (Latin-1). So one pattern serves valid
UTF-8 and everything else, and it is written in what Python's `re` and Oniguruma (other runtimes) read alike.
"""

from __future__ import annotations

import re

from riallm.tokenizer.special import TokenClass

_HIGH = "\x80-\xff"  # all of a character beyond ASCII; counts as a letter
_NAME = f"[A-Za-z_{_HIGH}][A-Za-z0-9_{_HIGH}]*"
_MARK = f"[^A-Za-z0-9_{_HIGH} \\t\\r\\n]"

PATTERN = "|".join(
    (
        r"(?:\r?\n)+[ \t]*",  # line ends, and the indentation of the line that follows
        r"\A(?:[ \t]{2,}|\t)",  # the indentation of a fragment; one blank belongs to the word that follows
        f" ?{_NAME}",
        r" ?[0-9]{1,2}",
        f" ?{_MARK}+",  # operators and brackets in a row
        r"[ \t]+(?= [^ \t\r\n])",  # blanks inside a line, but for the one that the next piece takes
        r"[ \t]+",
        r"\r",
    )
)

# What is no identifier although it looks like one: the keywords of Python 3.
_KEYWORD_WORDS = (
    "False None True and as assert async await break class continue def del elif else except finally for from global "
    "if import in is lambda nonlocal not or pass raise return try while with yield"
)
_OPERATOR_WORDS = (
    "+ - * ** / // % @ << >> & | ^ ~ := < > <= >= == != ( ) [ ] { } , : . ; = -> += -= *= /= //= %= @= &= |= ^= >>= "
    "<<= **= ... # \\ ' \" ''' \"\"\""
)
KEYWORDS = tuple(_KEYWORD_WORDS.split())
OPERATORS = tuple(_OPERATOR_WORDS.split())
_LEVELS = 8
_INDENTS = (
    *("    " * level for level in range(1, _LEVELS + 1)),
    *("  " * level for level in range(1, _LEVELS, 2)),
    *("\t" * level for level in range(1, _LEVELS + 1)),
)


def _base_syntax() -> tuple[str, ...]:
    words = [*KEYWORDS, *OPERATORS]
    lines = ["\n", "\n\n", "\n\n\n", *(f"{end}{indent}" for end in ("\n", "\n\n") for indent in _INDENTS)]
    # A single byte is a token already.
    return tuple(text for text in (*words, *(f" {word}" for word in words), *lines) if len(text) > 1)


BASE_SYNTAX = _base_syntax()

_PIECE = re.compile(PATTERN)
_IDENTIFIER = re.compile(f" ?{_NAME}")
_DIGIT = re.compile(" ?[0-9]")
_KEYWORDS = frozenset(KEYWORDS)

# Strings and comments of Python, in which words are no identifiers.
_PROSE = re.compile(
    r"""'''(?:[^\\]|\\.)*?'''|\"\"\"(?:[^\\]|\\.)*?\"\"\"|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|\#[^\n]*""", re.DOTALL
)


def pieces(text: str) -> list[str]:
    """`text` (bytes as Latin-1) cut into its pieces; joined they are the text again."""
    return _PIECE.findall(text)


def code_only(text: str) -> str:
    """`text` with the content of Python strings and comments left out."""
    return _PROSE.sub('""', text)


def kind_of(piece: str) -> TokenClass:
    """The class a whole piece would have as one token: names, then syntax; digits are never more than subwords."""
    if _IDENTIFIER.fullmatch(piece):
        return TokenClass.SYNTAX if piece.removeprefix(" ") in _KEYWORDS else TokenClass.IDENTIFIER
    return TokenClass.SUBWORD if _DIGIT.match(piece) else TokenClass.SYNTAX

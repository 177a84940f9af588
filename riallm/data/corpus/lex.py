"""Python text as numbers: one 64-bit code a token, and windows of tokens that are equal up to renaming.

The lexer is one regular expression, a hundred times faster than `tokenize`; layout and comments leave no trace. It is
only used to compare texts, so what it takes apart wrongly it takes apart wrongly in both.
"""

from __future__ import annotations

import builtins
import keyword
import re
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from typing import Any

from riallm.core.errors import UsageError

STRINGS = (
    r"[rRbBuUfFtT]{0,2}(?:\"\"\"(?:[^\\]|\\.)*?\"\"\"|'''(?:[^\\]|\\.)*?'''"
    r"|\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*')"
)
_TOKEN = re.compile(
    r"(?:[\s\\]++|\#[^\n]*+)*+"  # possessive: comments must not be tried in every way
    rf"({STRINGS}|[^\W\d]\w*|(?:\d|\.\d)(?:[eE][+-]|[\w.])*|\*\*=?|//=?|>>=?|<<=?|->|:=|\.\.\.|[-+*/%&|^@=<>!]=|\S|\Z)",
    re.DOTALL,
)
_WORD = re.compile(r"\w+")
_KEPT = frozenset(keyword.kwlist) | frozenset(name for name in dir(builtins) if not name.startswith("_"))

# The two low bits of a code say what the token is.
PLAIN, NAME, STRING, NUMBER = range(4)
WINDOW = 13
TELLING = 3
SHINGLE = 5
_FACTOR = 0x9E3779B97F4A7C15
_MARKS = frozenset(",()[]{}:=.;")
# What annotations are made of: a signature with types is as common as one without.
_TYPES = frozenset(
    {
        "|", "->", "None", "True", "False", "bool", "bytes", "dict", "float", "int", "list", "object", "set", "str",
        "tuple", "type",
    }
)  # fmt: skip


class _Codes(dict[str, int]):
    """Token -> code, made when first asked for."""

    def __missing__(self, token: str) -> int:
        if len(self) > 2_000_000:
            self.clear()
        first, last = token[0], token[-1]
        kind = PLAIN
        if last in "\"'":
            kind = STRING
        elif first.isdigit() or (first == "." and len(token) > 1 and token != "..."):
            kind = NUMBER
        elif (first.isalpha() or first == "_") and token not in _KEPT:
            kind = NAME
        code = (int.from_bytes(blake2b(token.encode("utf-8", "replace"), digest_size=8).digest(), "little") & ~3) | kind
        self[token] = code
        return code


_CODES = _Codes()
_PUNCTUATION = {_CODES[mark] for mark in _MARKS}
_NOT_TELLING = {_CODES[word] for word in _MARKS | _TYPES}
_DOT = _CODES["."]
_IMPORT, _DECORATOR = _CODES["import"], _CODES["@"]


def numpy() -> Any:
    """The module; UsageError with the line that installs it when it is missing."""
    try:
        import numpy as np
    except ImportError as error:
        raise UsageError("numpy is missing; install it: pip install 'riallm[data]'.") from error
    return np


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """A text's tokens. codes: (n,) uint64, the two low bits PLAIN, NAME, STRING or NUMBER."""

    codes: Any

    @staticmethod
    def of(text: str) -> Tokens:
        """The tokens of a Python text, comments and layout left out."""
        np = numpy()
        found = _TOKEN.findall(text)
        while found and not found[-1]:  # the end of the text matches too, or what stands before it would be tried anew
            found.pop()
        return Tokens(codes=np.fromiter(map(_CODES.__getitem__, found), dtype=np.uint64, count=len(found)))

    @property
    def literal_share(self) -> float:
        """Share of the tokens that are strings, numbers, or commas and brackets between them."""
        np = numpy()
        if not len(self.codes):
            return 0.0
        kinds = self.codes & np.uint64(3)
        marks = np.isin(self.codes, _marks())
        return float(((kinds >= STRING) | marks).mean())

    def shingles(self) -> Any:
        """(m,) uint32: the distinct runs of 5 tokens, or the one run of a shorter text; for MinHash."""
        np = numpy()
        rolled = _rolled(self.codes, min(SHINGLE, max(1, len(self.codes))))
        return np.unique((rolled >> np.uint64(32)).astype(np.uint32))

    def windows(self) -> tuple[Any, Any]:
        """((m,) uint64 hashes, (m,) bool) of all runs of 13 tokens, each renamed by itself, and which tell much.

        A name is replaced by how many tokens back it stood in the window, or by one symbol where it is new: two
        windows are equal exactly when some renaming of names makes them so. Names after a dot, keywords and builtins
        stay, strings become one symbol, numbers stay. A window tells much when at least three of its tokens are
        keywords, operators, builtins, attributes, or names seen before in it, and none is `import` or `@`: lists and
        signatures do not, types included, and imports and decorated tests look alike once their names are gone.
        """
        np = numpy()
        n = len(self.codes) - WINDOW + 1
        if n <= 0:
            return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=bool)
        kinds = self.codes & np.uint64(3)
        after_dot = np.zeros(len(self.codes), dtype=bool)
        after_dot[1:] = self.codes[:-1] == np.uint64(_DOT)
        free = (kinds == NAME) & ~after_dot
        back = _back(self.codes, free)
        fixed = self.codes.copy()
        fixed[kinds == STRING] = STRING
        telling = ~np.isin(self.codes, _marks(True)) & ((kinds == PLAIN) | after_dot)
        seen = _symbols()
        hashes = np.zeros(n, dtype=np.uint64)
        count = np.zeros(n, dtype=np.uint8)
        common = np.zeros(n, dtype=bool)
        for place in range(WINDOW):
            part = slice(place, place + n)
            distance = np.where(back[part] <= place, back[part], 0)
            hashes = hashes * np.uint64(_FACTOR) + np.where(free[part], seen[distance], fixed[part])
            count += telling[part] | (free[part] & (distance > 0))
            common |= (self.codes[part] == np.uint64(_IMPORT)) | (self.codes[part] == np.uint64(_DECORATOR))
        return hashes, (count >= TELLING) & ~common


@cache
def _symbols() -> Any:
    """Codes of "a new name" and of "the name of so many tokens back"."""
    return numpy().random.default_rng(13).integers(2**63, size=WINDOW + 1, dtype="uint64")


@cache
def _marks(types: bool = False) -> Any:
    return numpy().array(sorted(_NOT_TELLING if types else _PUNCTUATION), dtype="uint64")


def words(text: str) -> Any:
    """(m,) uint64 hashes of all runs of 13 words of a text, in lower case, marks left out."""
    np = numpy()
    found = _WORD.findall(text.lower())
    codes = np.fromiter(map(_CODES.__getitem__, found), dtype=np.uint64, count=len(found))
    return _rolled(codes, WINDOW) if len(codes) >= WINDOW else np.zeros(0, dtype=np.uint64)


def _rolled(codes: Any, width: int) -> Any:
    np = numpy()
    n = len(codes) - width + 1
    rolled = np.zeros(max(n, 0), dtype=np.uint64)
    for place in range(width if n > 0 else 0):
        rolled = rolled * np.uint64(_FACTOR) + codes[place : place + n]
    return rolled


def _back(codes: Any, free: Any) -> Any:
    """(n,) int: how many tokens before each free name the same name stood last, at most 13; 0 when further or never."""
    np = numpy()
    at = np.flatnonzero(free)
    order = at[np.argsort(codes[at], kind="stable")]
    same = codes[order[1:]] == codes[order[:-1]]
    gap = order[1:] - order[:-1]
    back = np.zeros(len(codes), dtype=np.int64)
    near = same & (gap < WINDOW)
    back[order[1:][near]] = gap[near]
    return back

"""Why a file stays out, by its path and its text. Each filter returns a reason, and reasons become counters."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from riallm.code.source import Source
from riallm.core.errors import ProjectError
from riallm.data.corpus.lex import Tokens

VENDORED, GENERATED, TABLES, LONG_LINES = "vendored", "generated", "tables of literals", "long lines"
TOO_SMALL, TOO_LARGE, NOT_UTF8, NOT_PYTHON = "too small", "too large", "not UTF-8", "does not parse"
LICENCE, SECRET, EXACT, NEAR = "licence not permissive", "secret", "exact copy", "near copy"
CONTAMINATED, TEST_SHARE, PACKAGE_SHARE = "evaluation set", "over the share of tests", "over the share of one package"
REASONS = (
    VENDORED, NOT_UTF8, TOO_SMALL, TOO_LARGE, LICENCE, GENERATED, LONG_LINES, TABLES, NOT_PYTHON, SECRET, EXACT, NEAR,
    CONTAMINATED, TEST_SHARE, PACKAGE_SHARE,
)  # fmt: skip
"""All reasons, in the order in which files are asked."""

_VENDORED = re.compile(
    r"_?vendor(?:ed|s)?|_vendor\w*|externals?|_externals?|extern|third_?party|_?bundled|site-packages|contrib_vendor"
    r"|node_modules|submodules"
)
_GENERATED = re.compile(
    r"do not edit|automatically generated|auto-?generated|generated (?:by|from|with|automatically)|@generated"
    r"|machine generated",
    re.IGNORECASE,
)
_GENERATED_NAME = re.compile(r".*_pb2(?:_grpc)?\.py|(?:lex|yacc|parser|parse)tab\.py|.*_lextab\.py|.*_generated\.py")
# Names of evaluation packages that are ordinary words for a folder; their content is told by its passages alone.
_WORDS = frozenset({"schema", "parse", "markdown", "validators", "click"})
MIN_BYTES = 200
MAX_BYTES = 400_000
MAX_LINE = 1_000


def of_path(path: str, held_out: frozenset[str] = frozenset()) -> str | None:
    """A reason by the path alone; `held_out` are folders and modules of evaluation packages, wherever they lie."""
    parts = PurePosixPath(path).parts
    if any(_VENDORED.fullmatch(part.lower()) for part in parts[:-1]):
        return VENDORED
    if (held_out - _WORDS) & {*parts[:-1]}:
        return CONTAMINATED
    return GENERATED if _GENERATED_NAME.fullmatch(parts[-1]) else None


def decoded(data: bytes) -> str | None:
    """The text with plain line ends and no byte order mark; None when the bytes are not UTF-8."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\0" not in text else None


def of_text(text: str) -> str | None:
    """A reason by the text before it is parsed: its size, its lines, what its first lines say."""
    if len(text) < MIN_BYTES:
        return TOO_SMALL
    if len(text) > MAX_BYTES:
        return TOO_LARGE
    if _GENERATED.search(text[:2_000].partition('"""')[0]) or _GENERATED.search("".join(text[:600].splitlines(True))):
        return GENERATED
    return LONG_LINES if max(map(len, text.split("\n"))) > MAX_LINE else None


def of_tokens(tokens: Tokens) -> str | None:
    """A reason by the tokens: over 85 % literals and what stands between them in a text of over 400."""
    return TABLES if len(tokens.codes) > 400 and tokens.literal_share > 0.85 else None


def parsed(path: str, text: str) -> Source | None:
    """The parsed file, or None when it is not Python for the running interpreter."""
    try:
        return Source.from_text(path, text)
    except ProjectError:
        return None

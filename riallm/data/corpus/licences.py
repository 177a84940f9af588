"""Licences file by file: which expressions allow reuse, what a file's own header says, and the text without it."""

from __future__ import annotations

import ast
import re
from functools import cache
from importlib import import_module

from riallm.code.source import parse_text
from riallm.core.errors import UsageError

PERMISSIVE = frozenset(
    {
        "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "CNRI-Python", "HPND", "ISC", "MIT", "MIT-0",
        "PSF-2.0", "Python-2.0", "Unlicense", "Zlib", "ZPL-2.1",
    }
)  # fmt: skip
"""SPDX ids under which a text may be used for training. Nothing with a duty to share alike is among them."""

_SPDX = re.compile(r"SPDX-License-Identifier:\s*([\w.+() -]+?)\s*(?:\*/)?$", re.MULTILINE)
_FOREIGN = (
    (r"GNU\s+Affero|\bAGPL", "AGPL-3.0-or-later"),
    (r"GNU\s+(?:Lesser|Library)|\bLGPL", "LGPL-2.1-or-later"),
    (r"GNU\s+General\s+Public|\bGPL(?:v?[23])?\b", "GPL-2.0-or-later"),
    (r"Mozilla\s+Public|\bMPL\b", "MPL-2.0"),
    (r"Creative\s+Commons|\bCC[- ]BY", "CC-BY-4.0"),
    (r"Eclipse\s+Public", "EPL-2.0"),
    (r"proprietary|confidential", "LicenseRef-proprietary"),
)
_OWN = (
    (r"Apache\s+License|apache\.org/licenses", "Apache-2.0"),
    (r"\bMIT\b|Permission\s+is\s+hereby\s+granted,\s+free\s+of\s+charge", "MIT"),
    (r"Redistribution\s+and\s+use\s+in\s+source|\bBSD\b", "BSD-3-Clause"),
    (r"Python\s+Software\s+Foundation|\bPSF\b", "PSF-2.0"),
)
_HEADER_WORDS = re.compile(
    r"copyright|\(c\)|©|licen[sc]e|SPDX|all rights reserved|redistribut|\bauthors?\b\s*:|warrant", re.IGNORECASE
)
_FULL_TEXT = re.compile(
    r"Permission\s+is\s+hereby\s+granted|Redistribution\s+and\s+use\s+in\s+source|Licensed\s+under\s+the\s+Apache"
    r"|WITHOUT\s+WARRANTY|all\s+rights\s+reserved",
    re.IGNORECASE,
)
_COMMENTS = re.compile(r"(?:[ \t]*(?:#[^\n]*)?(?:\n|$))*?(?=[^\s#]|\Z)")


@cache
def permissive(expression: str) -> bool:
    """Whether an SPDX expression can be met by permissive licences alone: every AND, any OR.

    Unknown ids count as not permissive. Raises UsageError when the package that reads expressions is missing.
    """
    try:
        expressions = import_module("license_expression")
    except ImportError as error:
        raise UsageError("license-expression is missing; install it: pip install 'riallm[data]'.") from error
    try:
        tree = expressions.get_spdx_licensing().parse(expression)
    except expressions.ExpressionError:
        return False
    return tree is not None and _met(tree)


def _met(tree: object) -> bool:
    parts = getattr(tree, "args", ())
    if not parts:
        return str(getattr(tree, "key", tree)) in PERMISSIVE
    return (any if type(tree).__name__ == "OR" else all)(_met(part) for part in parts)


def header(text: str) -> str:
    """The comments before a file's first statement, and its docstring where that is a string at the top."""
    start = _COMMENTS.match(text)
    before = start.group() if start else ""
    rest = text[len(before) :]
    opening = re.match(r"[rRuUbB]?(\"\"\"|''')(.*?)\1", rest[:6000], re.DOTALL)
    return before + (opening[2] if opening else "")


def of_file(text: str, package: str) -> str:
    """The file's SPDX expression: what its header says, else its package's.

    A header that speaks of several licences is taken for the strictest of them.
    """
    top = header(text)
    stated = _SPDX.search(top)
    if stated:
        return stated[1].strip()
    if not _HEADER_WORDS.search(top):
        return package
    for pattern, spdx in _FOREIGN:
        if re.search(pattern, top):
            return spdx
    for pattern, spdx in _OWN:
        if re.search(pattern, top):
            # A package under either of two licences says so once; its files name one of them.
            return package if spdx in package or spdx[:3] == package[:3] == "BSD" else spdx
    return package


def without_header(text: str) -> str:
    """The text without leading comments that speak of rights, and without a docstring that is a licence.

    Also gone are the first line of a script and a coding line, which mean nothing in UTF-8. The result parses when
    the text did.
    """
    start = _COMMENTS.match(text)
    before = start.group() if start else ""
    blocks = re.split(r"(?<=\n)[ \t]*\n", before)
    kept = [block for block in blocks if block.strip() and not _HEADER_WORDS.search(block)]
    lines = [
        line
        for block in kept
        for line in [*block.splitlines(), ""]
        if not re.match(r"#!|#.*?coding[:=]|#.*\b(?:vim?|emacs)\b|#\s*-\*-", line)
    ]
    left = "\n".join(lines).strip("\n")
    rest = text[len(before) :]
    if _FULL_TEXT.search(rest[:3000]):
        rest = _without_docstring(rest)
    return (left + "\n\n" if left.strip() else "") + rest.lstrip("\n")


def _without_docstring(text: str) -> str:
    body = parse_text(text).body
    first = body[0] if body else None
    if not isinstance(first, ast.Expr) or not isinstance(first.value, ast.Constant) or len(body) < 2:
        return text
    if not isinstance(first.value.value, str) or not _FULL_TEXT.search(first.value.value):
        return text
    lines = text.split("\n")
    if first.end_lineno is None or body[1].lineno <= first.end_lineno:
        return text
    return "\n".join(lines[first.end_lineno :]).lstrip("\n")

"""Which of the debug patterns of the RIA document (section 5.5.2) a bug is, told from what the edit takes and gives.

The rules are tried in order and the first that holds names the pattern; what none knows is "other". They read the
edit alone, so the same edit always has the same pattern; `refine` may then use the message of the failing test.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Sequence

from riallm.code.edit import Edit
from riallm.code.source import Source

_RACE = re.compile(r"\b(\w*lock\w*|acquire|release|thread\w*|semaphore|async|await|queue)\b", re.IGNORECASE)
_RESOURCE = re.compile(r"\b(close|closing|__exit__|flush|clear|popitem|evict\w*|unlink|del|shutdown|terminate)\b")
_NULL = re.compile(r"\bis (not )?None\b|(==|!=) None\b|\bNone\b")
_GUARD = re.compile(r"^\s*(el)?if not [\w.]+:|^\s*(el)?if [\w.]+:")
_CONVERT = re.compile(r"\b(int|float|str|bytes|list|tuple|set|frozenset|dict|bool|iter|isinstance|type)\(")
_SIZES = ({"<", "<="}, {">", ">="})


def pattern_of(source: Source, edits: Sequence[Edit]) -> str:
    """The pattern of the first edit that has one."""
    found = [_pattern(source, edit) for edit in edits]
    return next((pattern for pattern in found if pattern != "other"), "other")


def refine(pattern: str, messages: Sequence[str]) -> str:
    """The pattern once it is known how the tests fail: None where a value should be, or a wrong type."""
    if pattern != "other":
        return pattern
    text = "\n".join(messages)
    if "NoneType" in text:
        return "missing null check"
    return "type error" if "TypeError" in text else pattern


def _tokens(text: str) -> Counter[str]:
    try:
        found = [token.string for token in tokenize.generate_tokens(io.StringIO(text).readline)]
    except (tokenize.TokenError, SyntaxError):
        found = text.split()
    return Counter(token for token in found if token.strip())


def _pattern(source: Source, edit: Edit) -> str:
    lost, won = _tokens(edit.original), _tokens(edit.text)
    gone, come = set(lost - won), set(won - lost)
    begin = source.text.rfind("\n", 0, edit.start) + 1
    around = source.text[begin : source.line_end(edit.end)]
    if _off_by_one(gone, come) or edit.operator == "add_offset":
        return "off-by-one"
    if _RACE.search(edit.original) and _RACE.search(" ".join(gone)):
        return "race condition"
    if _RESOURCE.search(" ".join(gone)) and not _RESOURCE.search(" ".join(come)):
        return "memory leak"
    if edit.operator == "guard":
        head = edit.original.splitlines()[0] if edit.original else ""
        if _NULL.search(head) or _GUARD.search(head):
            return "missing null check"
        if "isinstance" in head:
            return "type error"
    if "None" in gone or ("None" in come and _NULL.search(around)):
        return "missing null check"
    if _CONVERT.search(edit.original) and not _CONVERT.search(edit.text):
        return "type error"
    if edit.operator == "change_constant_type":
        return "type error"
    if edit.operator in ("key", "change_string", "flip_boolean") or _is_default(source, edit):
        return "configuration error"
    if edit.operator in ("attribute", "callee", "keyword", "change_function", "change_method", "change_attribute"):
        return "api misuse"
    return "api misuse" if "argument" in edit.operator or "keyword" in edit.operator else "other"


def _off_by_one(gone: set[str], come: set[str]) -> bool:
    if len(gone) == 1 and len(come) == 1 and any({*gone, *come} == pair for pair in _SIZES):
        return True
    numbers = [[int(token) for token in side if token.isdigit()] for side in (gone, come)]
    if len(numbers[0]) == len(numbers[1]) == len(gone) == len(come) == 1:
        return abs(numbers[0][0] - numbers[1][0]) == 1
    return {"+", "1"} in (gone, come) or {"-", "1"} in (gone, come)


def _is_default(source: Source, edit: Edit) -> bool:
    """Whether the edit stands in the default value of a parameter."""
    function = source.function_at(edit.start)
    if function is None:
        return False
    values: list[ast.expr | None] = [*function.args.defaults, *function.args.kw_defaults]
    spans = [source.span(value) for value in values if value is not None]
    return any(start <= edit.start and edit.end <= end for start, end in spans)

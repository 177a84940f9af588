"""Files are kept exactly, and positions lead back and forth between characters and the syntax tree."""

from __future__ import annotations

import ast
import codecs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riallm.code.source import Source, header_nodes, is_compound
from riallm.core.errors import ProjectError

KEPT: dict[str, bytes] = {
    "plain": b"x = 1\n",
    "empty": b"",
    "no line end": b"x = 1",
    "crlf": b"def f():\r\n    return 1\r\n",
    "old mac": b"x = 1\ry = 2\r",
    "mixed ends": b"x = 1\r\ny = 2\nz = 3\r",
    "tabs": b"def f():\n\treturn 1\t# one\n",
    "mark": codecs.BOM_UTF8 + "é = 1\n".encode(),
    "mark alone": codecs.BOM_UTF8,
    "latin": "# -*- coding: latin-1 -*-\nx = 'é'\n".encode("latin-1"),
    "cookie on line two": "#!/usr/bin/python\n# vim: set fileencoding=cp1252 :\nx = '€'\n".encode("cp1252"),
    "wide": "x = '𝒳' + 'é'  # ü\n".encode(),
    "form feed": b"x = 1\n\x0c\ny = 2\n",
    "strange line ends": "x = '\u2028' + '\x0b'\ny = 2\n".encode(),
}


@pytest.mark.parametrize("name", KEPT)
def test_bytes_come_back(name: str) -> None:
    source = Source.parse("a.py", KEPT[name])
    assert source.encode(source.text) == KEPT[name]
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Name):
            assert source.segment(node) == node.id
        if hasattr(node, "lineno"):
            start, _ = source.span(node)
            assert source.position(start) == (node.lineno, node.col_offset)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"x = 1\ndef f(:\n", r"pkg/a\.py:2: not valid Python \(.+\); mend"),
        (b"x = 1\n  y = 2\n", r"pkg/a\.py:2: .*indent"),
        (b"x = '\xff'\n", r"pkg/a\.py: cannot be decoded"),
        (b"# coding: no-such\n", r"pkg/a\.py: cannot be decoded .*no-such"),
        (b"x = 1\0\n", r"pkg/a\.py:1: "),
        (b"# coding: utf-7\nx = '+AGE-'\n", r"does not encode back"),
        (b"(" * 3000 + b")" * 3000, r"pkg/a\.py:1: "),
    ],
)
def test_what_is_not_python_names_file_and_line(data: bytes, said: str) -> None:
    with pytest.raises(ProjectError, match=said):
        Source.parse("pkg/a.py", data)


def test_a_character_that_the_file_cannot_hold_is_refused() -> None:
    source = Source.parse("a.py", KEPT["latin"])
    with pytest.raises(ProjectError, match=r"a\.py: '€' cannot be written in iso-8859-1"):
        source.encode("x = '€'\n")


def test_text_is_utf_8_unless_said_otherwise() -> None:
    source = Source.from_text("a.py", "x = 'é'\n")
    assert source.encode(source.text) == "x = 'é'\n".encode()


def test_doubtful_escapes_of_the_user_do_not_warn() -> None:
    assert Source.from_text("a.py", "x = '\\d'\n").top_level


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["a = 1", "é = 'ü'", "", "# ñ\t", "x = '''𝒳\n'''", "\tb", "s = '\u2028'"]), max_size=8))
def test_offsets_and_positions_are_inverse(lines: list[str]) -> None:
    text = "\r\n".join(line if not line.startswith("\t") else "if 1:" + line for line in lines)
    source = Source.from_text("a.py", text)
    for offset in range(len(text) + 1):
        assert source.offset(*source.position(offset)) == offset
    assert source.line_of(len(text)) == len(source.line_starts)


NESTED = '''\
import os

@decorate(
    1,
)
class A(Base, metaclass=M):
    """Doc."""

    @property
    def f(self, a=(1, 2), *, b: int = {1: 2}[1]) -> "x:y":  # a comment: with colons
        if a: return b; pass
        elif (lambda: b)():
            b = 1
        else:
            b = 2

        try:
            pass
        except (ValueError, KeyError) as e:
            raise
        finally:
            pass

        def inner():
            async with x as y, z:
                yield

        match a:
            case [1, *rest] if rest:
                return
            case _:
                return f"{b:>{a}}"

x = 1; y = 2
'''


def test_items_of_a_line() -> None:
    source = Source.from_text("a.py", NESTED)
    lines = NESTED.split("\n")

    def kinds(text: str) -> list[str]:
        (line,) = [number for number, each in enumerate(lines, 1) if each.strip() == text]
        return [type(node).__name__ for node in source.items_at(line)]

    assert kinds("if a: return b; pass") == ["If", "Return", "Pass"]
    assert kinds("elif (lambda: b)():") == ["If"]
    assert kinds("else:") == []
    assert kinds("finally:") == []
    assert kinds("except (ValueError, KeyError) as e:") == ["ExceptHandler"]
    assert kinds("case [1, *rest] if rest:") == ["match_case"]
    assert kinds("async with x as y, z:") == ["AsyncWith"]
    assert kinds("@decorate(") == kinds("class A(Base, metaclass=M):") == ["ClassDef"]
    assert kinds("@property") == ["FunctionDef"]
    assert kinds("x = 1; y = 2") == ["Assign", "Assign"]
    assert source.items_at(2) == source.items_at(999) == []


def test_headers_end_after_their_colon() -> None:
    source = Source.from_text("a.py", NESTED)
    for node in source.places:
        start, end = source.item_span(node)
        header = source.text[start : source.header_end(node)]
        if is_compound(node):
            assert header.endswith(":"), header
            assert header.count("\n") == ("@" in header) + 3 * header.startswith("@decorate") - header.startswith(
                "@decorate"
            )
        else:
            assert source.header_end(node) == end
    function = source.function_at(NESTED.index("yield"))
    assert function is not None and function.name == "inner"
    assert source.function_at(NESTED.index("rest]")).name == "f"  # type: ignore[union-attr]
    assert source.class_at(NESTED.index("rest]")).name == "A"  # type: ignore[union-attr]
    assert source.class_at(0) is source.function_at(len(NESTED)) is None
    assert source.item_at(NESTED.index("y = 2")) is source.top_level[-1]


def test_a_decorated_span_begins_at_the_decorator() -> None:
    source = Source.from_text("a.py", NESTED)
    (owner,) = [node for node in source.top_level if isinstance(node, ast.ClassDef)]
    assert source.text[slice(*source.item_span(owner))].startswith("@decorate(")
    assert source.segment(owner).startswith("class A")
    assert len(list(header_nodes(owner))) == 3

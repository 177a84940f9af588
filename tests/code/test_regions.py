"""The piece that an edit changes is found, parses alone, and gives equal keys for equal programs only."""

from __future__ import annotations

import ast

import pytest

from riallm.code.edit import Edit
from riallm.code.regions import changed_trees, shape, statement_key
from riallm.code.source import Source

PROGRAM = '''\
@wrap(
    2
)
def f(a, b=3):
    x = a + b  # sum
    if a: return b
    elif b:
        for i in a:
            x += i
    else:
        x = """
text"""
    try:
        y = {
            "k": a,
        }
    except KeyError:
        pass
    while x:
        if b:
            x -= 1
    match a:
        case 1 if b:
            x = 0
    return x
z = 1; w = 2
'''


def edit(old: str, new: str, *, program: str = PROGRAM, path: str = "a.py") -> tuple[Source, Edit]:
    """The edit that replaces the first occurrence of a text."""
    source = Source.from_text(path, program)
    start = program.index(old)
    return source, Edit(path=path, start=start, original=old, text=new, line=source.line_of(start), operator="test")


def same(old: str, new: str) -> bool:
    """What a slow and simple judge says: whether both whole programs have one tree."""
    return ast.dump(ast.parse(PROGRAM)) == ast.dump(ast.parse(PROGRAM.replace(old, new, 1)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("2\n)", "4\n)"),
        ("b=3", "b=None"),
        ("a + b", "a - b"),
        ("a: return", "not a: return"),
        ("elif b", "if b"),
        ("for i in a", "for i in b"),
        ("            x += i\n", "            x -= i\n            continue\n"),
        ("text", "other"),
        ("KeyError", "KeyError as e"),
        ('"k": a', '"k": a, "l": b'),
        ("            x -= 1\n", "            x -= 1\n        break\n"),
        ("    return x\n", ""),
        ("        if b:\n            x -= 1\n", "        x -= 1\n"),
        ("z = 1; w = 2", "w = 2; z = 1"),
        ("return b", "pass"),
        ("match a", "match b"),
        ("case 1 if b", "case 1 | 2 if b"),
        ("    try:\n", "    if a:\n        b = 2\n    try:\n"),
        ("    while x:", "    print(x)\n    while x:"),
        ("w = 2\n", "w = 2\nv = 3\n"),
    ],
)
def test_a_change_has_a_key(old: str, new: str) -> None:
    assert not same(old, new)
    source, made = edit(old, new)
    assert statement_key(source, made).startswith("a.py:")
    trees = changed_trees(source, made)
    assert trees is not None and shape(trees[0]) != shape(trees[1])


@pytest.mark.parametrize(
    ("old", "new"),
    [("a + b", "(a + b)"), ("a + b  # sum", "a+b"), ("2\n)", "2,\n)"), ("x -= 1", "x -= (1)"), ("b=3", "b=0x3")],
)
def test_other_writing_has_no_key(old: str, new: str) -> None:
    assert same(old, new)
    assert statement_key(*edit(old, new)) == ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a + b", "a +"),
        ("elif b", "elif"),
        ("    return x\n", "      return x\n"),
        ("KeyError", "KeyError:"),
        ("case 1 if b", "case 1 + a if b"),
        ("match a:", "match {a}::"),
        ("            x += i\n", ""),
        ("w = 2\n", "w = 2\n  v = 3\n"),
        ("text", '"""'),
    ],
)
def test_what_does_not_parse_has_no_key(old: str, new: str) -> None:
    with pytest.raises(SyntaxError):
        ast.parse(PROGRAM.replace(old, new, 1))
    source, made = edit(old, new)
    assert statement_key(source, made) == ""
    assert changed_trees(source, made) is None


def test_equal_programs_have_equal_keys_and_others_not() -> None:
    one, other = statement_key(*edit("a + b", "a - b")), statement_key(*edit("x = a + b  # sum", "x = (a-b) # less"))
    assert one and one == other
    assert len({one, statement_key(*edit("a + b", "b - a")), statement_key(*edit("x += i", "x -= i"))}) == 3
    assert statement_key(*edit("a + b", "a - b", path="b.py")) != one


def test_the_same_line_at_two_depths_is_two_programs() -> None:
    source = Source.from_text("a.py", PROGRAM)
    at = PROGRAM.index("x -= 1") + len("x -= 1")
    keys = {
        statement_key(
            source, Edit(path="a.py", start=at, original="", text=f"\n{indent}x = 0", line=21, operator="test")
        )
        for indent in ("            ", "        ", "    ")
    }
    assert "" not in keys and len(keys) == 3


def test_a_long_table_is_judged_by_its_element() -> None:
    rows = "".join(f"    ('name{index}', {index + 5000}, [x for x in y]),\n" for index in range(200))
    program = f"TABLE = (\n{rows})\n"
    key = statement_key(*edit("5077", "5078", program=program))
    start = program.index("5077")
    assert key.startswith(f"a.py:{start}:{start + 4}:")
    assert statement_key(*edit("5077, [", "5077), [", program=program)) == ""
    assert statement_key(*edit("5077, [", "5077, 5, [", program=program))


def test_shapes_tell_apart_what_python_calls_equal() -> None:
    texts = ["1", "1.0", "True", "'1'", "b'1'", "1j", "-1", "...", "None", "0.0", "x", "x()", "[x]", "(x,)", "{x}"]
    assert len({shape(ast.parse(text)) for text in texts}) == len(texts)
    assert shape(ast.parse("x=1")) == shape(ast.parse("x = (1)"))

"""Injectors: what they make is another program, can be undone to the letter, and is the same for the same seed."""

import ast
import random

import pytest

from riallm.code.edit import Edit
from riallm.code.source import Source
from riallm.data.inject import (
    UNLIKE_NAMES,
    Injection,
    apply_edits,
    first_line,
    functions_of,
    inject,
    reverse_edits,
)
from riallm.data.inject_operators import operator_weights
from riallm.data.inject_pattern import pattern_of, refine
from riallm.data.inject_site import Library

TEXT = '''\
"""A module with a little of everything."""

import json
import os


class Store:
    """Keeps things."""

    def __init__(self, path, limit=10):
        """Open."""
        self.path = path
        self.limit = limit
        self.items = {}
        self.used = 0

    def put(self, key, value, *, replace=True):
        """Keep a value."""
        if key is None:
            raise KeyError("key")
        if key in self.items and not replace:
            return False
        if len(self.items) >= self.limit:
            self.evict()
            self.used += 1
        self.items[key] = value
        return True

    def evict(self):
        oldest = min(self.items)
        self.items.pop(oldest)
        return oldest

    def load(self, name):
        with open(os.path.join(self.path, name), encoding="utf-8") as file:
            data = json.load(file)
        for key, value in data.items():
            self.put(key, value, replace=False)
            self.used += 1
        count = len(data)
        return count


def total(values, start=0):
    result = start
    if not values:
        return result
    for value in values:
        if value > 0:
            result += value
        else:
            result -= abs(value)
    first = sorted(values)
    second = list(reversed(first))
    return result + max(first) - min(second)
'''
OTHER = """\
def walk(tree, depth=1):
    found = []
    for node in tree.keys():
        found.extend(tree.values())
        found.append(node.get("name", depth))
    items = sorted(found, key=str, reverse=True)
    options = dict(found=found, replace=items, encoding="ascii")
    return sum(items, depth)
"""


@pytest.fixture(scope="module")
def source():
    return Source.from_text("store.py", TEXT)


@pytest.fixture(scope="module")
def library(source):
    return Library.of([source, Source.from_text("other.py", OTHER)])


def tries(source, library, injector, num=30):
    found = []
    for seed in range(num):
        draw = random.Random(seed)
        name, function = draw.choice(functions_of(source))
        made = inject(source, function, name, library=library, injector=injector, draw=draw)
        if made is not None:
            found.append(made)
    return found


@pytest.mark.parametrize("name", UNLIKE_NAMES)
def test_unlike_injectors(source, library, name):
    found = tries(source, library, f"unlike:{name}")
    assert found, f"{name} found nothing to do in a module with a little of everything"
    for made in found:
        check(source, made)
        assert made.injector == f"unlike:{name}"
        assert len(made.edits) == (2 if name == "pair" else 1)


def test_operator_injector_names_its_operator(source, library):
    found = tries(source, library, "operator", num=25)
    assert len({made.injector for made in found}) > 5
    for made in found:
        check(source, made)
        assert made.injector == f"operator:{made.edits[0].operator}"


def check(source: Source, made: Injection) -> None:
    buggy = apply_edits(source.text, made.edits)
    assert ast.dump(ast.parse(buggy)) != ast.dump(source.tree)
    assert apply_edits(buggy, reverse_edits(made.edits)) == source.text
    function = dict(functions_of(source))[made.function]
    assert made.first_line == first_line(function)
    assert function.lineno <= made.line <= function.end_lineno
    docs = [ast.get_docstring(node) for node in ast.walk(ast.parse(buggy)) if isinstance(node, ast.ClassDef)]
    assert docs == ["Keeps things."]


def test_same_seed_same_bug(source, library):
    assert tries(source, library, "unlike:pair", 8) == tries(source, library, "unlike:pair", 8)


def test_shares_are_half_real_and_half_equal():
    weights = operator_weights()
    assert sum(weights.values()) == pytest.approx(1.0)
    assert min(weights.values()) >= 0.5 / len(weights)


def test_edits_of_a_pair_do_not_touch(source, library):
    for made in tries(source, library, "unlike:pair", 15):
        first, second = made.edits
        assert first.end < second.start
        assert first.line < second.line


def test_reversed_edits_know_their_lines():
    text = "a\nb\nc\nd\n"
    edits = (
        Edit(path="t", start=0, original="a\n", text="", line=1, operator="x"),
        Edit(path="t", start=4, original="c", text="C\nC", line=3, operator="x"),
    )
    buggy = apply_edits(text, edits)
    assert buggy == "b\nC\nC\nd\n"
    back = reverse_edits(edits)
    assert [edit.line for edit in back] == [1, 2]
    assert apply_edits(buggy, back) == text


@pytest.mark.parametrize(
    ("original", "text", "operator", "pattern"),
    [
        ("value > 0", "value >= 0", "change_comparison", "off-by-one"),
        ("0", "1", "change_number", "off-by-one"),
        ('        if key is None:\n            raise KeyError("key")\n', "", "guard", "missing null check"),
        ("    if not values:\n        return result\n", "", "guard", "missing null check"),
        ("list(reversed(first))", "reversed(first)", "unwrap_call", "type error"),
        ("items.pop", "items.get", "attribute", "api misuse"),
        ('"utf-8"', '"ascii"', "key", "configuration error"),
        ("result -= abs(value)", "result += abs(value)", "change_arithmetic", "other"),
    ],
)
def test_patterns(source, original, text, operator, pattern):
    start = source.text.index(original)
    line = source.line_of(start)
    edit = Edit(path="store.py", start=start, original=original, text=text, line=line, operator=operator)
    assert pattern_of(source, (edit,)) == pattern


def test_pattern_is_refined_by_how_tests_fail():
    assert refine("other", ["AttributeError: 'NoneType' object has no attribute 'x'"]) == "missing null check"
    assert refine("other", ["TypeError: unsupported"]) == "type error"
    assert refine("off-by-one", ["TypeError"]) == "off-by-one"

"""The corpus: what each filter lets through and what not, and that renamed copies of protected code are seen."""

from __future__ import annotations

import ast
import re

import pytest

from riallm.data.corpus import filters, licences, personal
from riallm.data.corpus.decontaminate import Protected, Text
from riallm.data.corpus.duplicates import Kept
from riallm.data.corpus.lex import Tokens

pytest.importorskip("datasketch", reason="the extra 'data' is not installed")

SOLUTION = '''def has_close(numbers, threshold):
    """Whether two numbers are closer than the threshold."""
    for place, first in enumerate(numbers):
        for other, second in enumerate(numbers):
            if place != other:
                distance = abs(first - second)
                if distance < threshold:
                    return True
    return False
'''
ORDINARY = '''import os
import sys
from collections import abc, defaultdict
from functools import partial, wraps


class Reader:
    """Reads settings."""

    def __init__(self, path: str | None = None, encoding: str | None = None, strict: bool | None = None) -> None:
        self.path = path
        self.encoding = encoding
        self.strict = strict

    def read(self):
        if self.path is None:
            raise ValueError("no path")
        with open(self.path, encoding=self.encoding) as file:
            return [line.strip() for line in file if line.strip()]


if __name__ == "__main__":
    sys.exit(print(Reader(os.environ["SETTINGS"]).read()))
'''
KINDS = ("str", "int", "list[str]", "dict[str, int]", "bytes", "tuple[int, str]", "set[float]")
COPYRIGHT = "# Copyright 2020 The Authors. All rights reserved.\n# Licensed under the MIT licence.\n\n"


def renamed(text: str) -> str:
    """The text with every name of its own replaced, and laid out anew."""
    for old, new in {
        "has_close": "check", "numbers": "xs", "threshold": "eps", "place": "i", "first": "u", "other": "j",
        "second": "v", "distance": "gap",
    }.items():  # fmt: skip
        text = re.sub(rf"\b{old}\b", new, text)
    return ast.unparse(ast.parse(text))


def guard() -> Protected:
    return Protected.of([Text(set="benchmark", text=SOLUTION, code=True, prose=True)])


def hit(text: str) -> str | None:
    return guard().found_in(Tokens.of(text), text)


def test_a_copy_inside_a_longer_file_is_caught() -> None:
    assert hit(ORDINARY + "\n\n" + SOLUTION) == "benchmark"


def test_a_renamed_copy_with_another_docstring_is_caught() -> None:
    copy = renamed(SOLUTION).replace("Whether two", "Some pair of")
    assert "numbers" not in copy and hit(ORDINARY + "\n\n" + copy) == "benchmark"


def test_ordinary_code_and_a_short_idiom_are_not() -> None:
    assert hit(ORDINARY) is None
    assert (
        hit("for i, first in enumerate(xs):\n    for j, second in enumerate(xs):\n        use(first, second)\n") is None
    )


@pytest.mark.parametrize(
    "common",
    [
        "".join("from .{0}{1} import ({0}_{1} as {0}, {0}_x, {0})\n".replace("{1}", str(i)) for i in range(20)),
        "".join(f'@mark.parametrize("{{0}}", [mark.param("{{0}}", id="{i}")])\n' for i in range(20))
        + "def f(): pass\n",
        "def make(self, " + ", ".join(f"{{0}}{i}: {KINDS[i * i % 7]} | None = None" for i in range(30)) + "): ...\n",
    ],
)
def test_imports_decorators_and_typed_signatures_look_alike_and_are_no_evidence(common: str) -> None:
    one, two = (common.replace("{0}", name) for name in ("alpha", "beta"))
    assert Protected.of([Text(set="x", text=one, code=True)]).found_in(Tokens.of(two), two) is None


def test_prose_is_compared_word_by_word() -> None:
    problem = " ".join(f"word{i} and" for i in range(40))
    index = Protected.of([Text(set="prose", text=problem, prose=True)])
    inside = f'"""{problem.upper()}"""\n'
    assert index.found_in(Tokens.of(inside), inside) == "prose"
    shuffled = " ".join(reversed(problem.split()))
    assert index.found_in(Tokens.of(shuffled), shuffled) is None


def test_windows_are_equal_exactly_up_to_renaming() -> None:
    base = "total = total + rate * total - rate if total > rate else rate\n"
    same = base.replace("total", "a").replace("rate", "b")
    mixed = base.replace("rate if", "total if")
    (one, _), (two, _), (three, _) = (Tokens.of(text).windows() for text in (base, same, mixed))
    assert one.tolist() == two.tolist() != three.tolist()


def test_a_text_that_ends_in_many_comments_is_read_at_once() -> None:
    assert len(Tokens.of("x = 1\n" + "# remark  \n  \\\n" * 5_000).codes) == 3


def test_copies_exact_and_near() -> None:
    kept = Kept()
    text = ORDINARY * 3
    reason, digest, signature = kept.copy_of(Tokens.of(text))
    assert reason is None
    kept.add(digest, signature)
    assert kept.copy_of(Tokens.of("# a remark\n" + text.replace("    ", "\t")))[0] == filters.EXACT
    assert kept.copy_of(Tokens.of(text + "\n\nEXTRA = 12345\n"))[0] == filters.NEAR
    assert kept.copy_of(Tokens.of(SOLUTION * 3))[0] is None


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("pip/_vendor/urllib3/util.py", filters.VENDORED),
        ("astropy/extern/six.py", filters.VENDORED),
        ("lib/third_party/x.py", filters.VENDORED),
        ("a/thing_pb2.py", filters.GENERATED),
        ("a/parsetab.py", filters.GENERATED),
        ("a/tabulate/core.py", filters.CONTAMINATED),
        ("wagtail/markdown/x.py", None),
        ("a/external_data.py", None),
    ],
)
def test_paths(path: str, reason: str | None) -> None:
    assert filters.of_path(path, frozenset({"tabulate", "markdown"})) == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = 1\n", filters.TOO_SMALL),
        ("x = 1\n" * 100_000, filters.TOO_LARGE),
        ("# Generated by the compiler. DO NOT EDIT!\n" + ORDINARY, filters.GENERATED),
        (ORDINARY + "x = '" + "a" * 2_000 + "'\n", filters.LONG_LINES),
        (ORDINARY, None),
    ],
)
def test_texts(text: str, reason: str | None) -> None:
    assert filters.of_text(text) == reason


def test_bytes_tables_and_syntax() -> None:
    assert filters.decoded("é".encode("latin-1")) is None
    assert filters.decoded(b"\xef\xbb\xbfa\r\nb\r") == "a\nb\n"
    table = "T = {\n" + "".join(f"    {i}: ({i}, 'x'),\n" for i in range(200)) + "}\n"
    assert filters.of_tokens(Tokens.of(table)) == filters.TABLES
    assert filters.of_tokens(Tokens.of(ORDINARY * 5)) is None
    assert filters.parsed("a.py", "print 'x'\n") is None


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("MIT OR GPL-2.0-only", True),
        ("MIT AND GPL-2.0-only", False),
        ("nonsense", False),
        ("MPL-2.0", False),
    ],
)
def test_expressions(expression: str, allowed: bool) -> None:
    assert licences.permissive(expression) is allowed


def test_a_files_own_header_overrides_its_package() -> None:
    gpl = "# Copyright 2020 X\n# GNU General Public License, version 2\n"
    assert licences.of_file(gpl + ORDINARY, "MIT").startswith("GPL")
    assert licences.of_file("# SPDX-License-Identifier: ISC\n" + ORDINARY, "MIT") == "ISC"
    assert licences.of_file(COPYRIGHT + ORDINARY, "BSD-3-Clause") == "MIT"
    assert licences.of_file(ORDINARY, "BSD-3-Clause") == "BSD-3-Clause"


def test_headers_go_and_other_comments_stay() -> None:
    text = "#!/usr/bin/env python\n# -*- coding: utf-8 -*-\n" + COPYRIGHT + "# Reads settings.\n\n" + ORDINARY
    assert licences.without_header(text) == "# Reads settings.\n\n" + ORDINARY
    licence = '"""Permission is hereby granted, free of charge, to any person"""\n' + ORDINARY
    assert licences.without_header(licence) == ORDINARY
    assert licences.without_header(ORDINARY) == ORDINARY


def test_addresses_and_passwords_are_replaced_in_strings_and_comments_only() -> None:
    text = "# by ann.lee@mail.example.de\nx = a@b.conj\ny = 'https://me:hunter2@host/x'\nz = 'a@example.com'\n"
    clean = personal.without_addresses(text)
    assert "ann.lee" not in clean and personal.STAND_IN in clean
    assert "x = a@b.conj" in clean and "a@example.com" in clean
    assert "hunter2" not in clean and "https://me:password@host/x" in clean


def test_keys_are_seen() -> None:
    token = "ghp_" + "a1B2c3D4e5" * 3 + "f6G7h8"
    assert personal.holds_secret(f"t = '{token}'\n")
    assert personal.holds_secret("k = '''-----BEGIN RSA PRIVATE KEY-----\nMIIE'''\n")
    assert not personal.holds_secret(ORDINARY)

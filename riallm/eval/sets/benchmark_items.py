"""Public benchmarks read as small programs with checks: where each set's parts are, and what one check is.

Nothing of a benchmark is kept in the repository. The folder is `--data`, $RIALLM_BENCHMARKS or ../shared/benchmarks.
"""

from __future__ import annotations

import ast
import gzip
import json
import os
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riallm.core.errors import UsageError

Row = dict[str, Any]


RECORD = "RECORD "


class Absent(UsageError):
    """A set whose data is not on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A program and its checks.

    code: the correct program, or for sets of real bugs the wrong one, with `reference` the correct one.
    support: what stands before the checks in a test file; each check is a few statements.
    test_file: for sets that bring a unittest file, its name; `support` is its text and `names` its tests.
    """

    id: str
    module: str
    code: str
    support: str
    checks: tuple[str, ...]
    reference: str = ""
    pattern: str = "other"
    test_file: str = ""
    names: tuple[str, ...] = ()


FILES = {
    "humaneval": "humaneval/HumanEval.jsonl.gz",
    "mbpp": "mbpp/mbpp.jsonl.gz",
    "cruxeval": "cruxeval/cruxeval.jsonl.gz",
    "codecontests": "codecontests_subset/codecontests_train_subset.jsonl.gz",
    "exercism": "exercism_python/exercism_python.jsonl.gz",
    "refactory": "refactory/refactory_q124.jsonl.gz",
    "debugbench": "debugbench/debugbench_python3.jsonl.gz",
}


def root(data: Path | None) -> Path:
    """The folder of the benchmarks; Absent when there is none."""
    places = [data, Path(os.environ["RIALLM_BENCHMARKS"]) if "RIALLM_BENCHMARKS" in os.environ else None]
    places += [Path(__file__).parents[4] / "shared" / "benchmarks"]
    for place in places:
        if place is not None and any((place / file).exists() for file in FILES.values()):
            return place
    raise Absent("no folder of benchmarks: give --data DIR or set RIALLM_BENCHMARKS (docs/evaluation.md)")


def items(name: str, data: Path | None) -> list[Item]:
    """All usable items of a set, in its own order."""
    path = root(data) / FILES[name]
    if not path.exists():
        raise Absent(f"{path} is not there")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return list(_READERS[name](rows))


def filled(item: Item, values: dict[str, str]) -> list[str]:
    """The item's checks with recorded results; `values`: position of a check -> literal. Others are left out."""
    checks = []
    for at, check in enumerate(item.checks):
        if not check.startswith(RECORD):
            checks.append(check)
        elif str(at) in values:
            checks.append(f"assert {check.removeprefix(RECORD)} == {values[str(at)]}")
    return checks


def importing(code: str, module: str) -> str:
    """`from module import` every name that the code binds at its top."""
    names: list[str] = []
    for node in ast.parse(code).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return f"from {module} import {', '.join(dict.fromkeys(names))}\n" if names else f"import {module}\n"


def parses(code: str) -> bool:
    """Whether the text is Python."""
    try:
        ast.parse(code)
    except (SyntaxError, ValueError):
        return False
    return True


def _humaneval(rows: list[Row]) -> Iterator[Item]:
    for row in rows:
        code = row["prompt"] + row["canonical_solution"]
        tree = ast.parse(row["test"])
        check = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "check")
        before = [node for node in check.body if not isinstance(node, ast.Assert)]
        asserts = [node for node in check.body if isinstance(node, ast.Assert) and "candidate" in ast.unparse(node)]
        setup = f"candidate = {row['entry_point']}\n"
        if any(isinstance(node, ast.For | ast.While) for node in before) or not asserts:
            checks = [setup + "\n".join(map(ast.unparse, check.body))]
        else:
            prelude = "\n".join(map(ast.unparse, before))
            checks = [f"{setup}{prelude}\n{ast.unparse(node)}" for node in asserts]
        support = importing(code, "solution")
        yield Item(
            id=row["task_id"].replace("/", "-"), module="solution", code=code, support=support, checks=tuple(checks)
        )


def _mbpp(rows: list[Row]) -> Iterator[Item]:
    for row in rows:
        if 11 <= row["task_id"] <= 510:
            code = row["code"].replace("\r\n", "\n").strip() + "\n"
            checks = tuple(text.strip() for text in row["test_list"] + row["challenge_test_list"])
            support = importing(code, "solution") + row["test_setup_code"].replace("\r\n", "\n")
            if parses(code):
                yield Item(id=f"mbpp-{row['task_id']}", module="solution", code=code, support=support, checks=checks)


def _cruxeval(rows: list[Row]) -> Iterator[Item]:
    for row in rows:
        code = row["code"].rstrip() + "\n"
        checks = (f"assert f({row['input']}) == {row['output']}", *_varied(row["input"]))
        yield Item(
            id=f"crux-{row['id']}", module="solution", code=code, support=importing(code, "solution"), checks=checks
        )


def _varied(call: str) -> list[str]:
    """Further calls made from one: each literal a little other. Their results are recorded from the correct program
    (RECORD before a check stands for that; `filled` puts in the result)."""
    tree = ast.parse(f"f({call})", mode="eval")
    literals = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    found = []
    for at, node in enumerate(literals[:6]):
        old = node.value
        if isinstance(old, str):
            node.value = (old[1:] + old[:1]) if len(old) > 1 else old + "a"
        elif isinstance(old, int) and not isinstance(old, bool):
            node.value = old + 1 + at % 2
        else:
            continue
        found.append(RECORD + ast.unparse(tree))
        node.value = old
    return found


STDIO = textwrap.dedent('''\
    import contextlib
    import io
    import sys


    def run(text):
        """What the program prints when it reads `text`."""
        old, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(text.encode()))
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
                main()
        finally:
            sys.stdin = old
        return printed.getvalue().split()


    ''')


def _codecontests(rows: list[Row]) -> Iterator[Item]:
    for row in rows:
        code = "def main():\n" + textwrap.indent(row["solution"].replace("\r\n", "\n").rstrip(), "    ") + "\n"
        if not row["exact_match_ok"] or not parses(code) or re.search(r"__name__|\bglobal\b", code):
            continue
        checks = tuple(f"assert run({one['input']!r}) == {one['output'].split()!r}" for one in row["tests"])
        support = "from solution import main\n" + STDIO
        yield Item(id=f"contest-{row['id']}", module="solution", code=code, support=support, checks=checks)


def _exercism(rows: list[Row]) -> Iterator[Item]:
    for row in rows:
        (file,), (test_file,) = row["solution_files"], row["test_files"]
        (code,), (test,) = row["example_files"].values(), row["test_files"].values()
        names = [
            (owner.name, node.name)
            for owner in ast.parse(test).body
            if isinstance(owner, ast.ClassDef)
            for node in owner.body
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test")
        ]
        yield Item(
            id=f"exercism-{row['name']}",
            module=file.removesuffix(".py"),
            code=code,
            support=test,
            checks=tuple(f"{owner}({name!r}).debug()" for owner, name in names),
            test_file=test_file,
            names=tuple(f"{test_file}::{owner}::{name}" for owner, name in names),
        )


def _refactory(rows: list[Row]) -> Iterator[Item]:
    questions = {row["question"]: row for row in rows if row["kind"] == "question"}
    for row in rows:
        if row["kind"] != "buggy":
            continue
        question = questions[row["question"]]
        prelude = question["prelude"].rstrip() + "\n\n\n" if question["prelude"].strip() else ""
        code, reference = (prelude + text.replace("\r\n", "\n") for text in (row["code"], question["references"][0]))
        if parses(code):
            checks = tuple(f"assert {one['call']} == {one['expected']}" for one in question["tests"])
            support = importing(reference, "solution")
            yield Item(
                id=f"refactory-{row['id']}",
                module="solution",
                code=code,
                reference=reference,
                support=support,
                checks=checks,
            )


LEETCODE = (
    "import bisect\nimport collections\nimport functools\nimport heapq\nimport itertools\nimport math\nimport re\n"
    "import string\nfrom bisect import *\nfrom collections import *\nfrom functools import *\nfrom heapq import *\n"
    "from itertools import *\nfrom math import *\nfrom typing import *\n\n\n"
)
_PATTERNS = {
    "condition error": "other",
    "faulty indexing": "off-by-one",
    "undefined methods": "api misuse",
    "undefined objects": "other",
}


def _debugbench(rows: list[Row]) -> Iterator[Item]:
    for number, row in enumerate(rows):
        code, reference = (LEETCODE + row[key].strip() + "\n" for key in ("buggy_code", "oracle_code"))
        if not parses(code) or not parses(reference) or re.search(r"ListNode|TreeNode|\bNode\b", reference):
            continue
        owner = next((node for node in ast.parse(reference).body if isinstance(node, ast.ClassDef)), None)
        methods = [node.name for node in owner.body if isinstance(node, ast.FunctionDef)] if owner else []
        if owner is None or owner.name != "Solution":
            continue
        public = [name for name in methods if not name.startswith("_")]
        checks = [check for text in row["examples"] if (check := _example(text, public[-1:] + public[:1]))]
        if len(checks) == len(row["examples"]) > 0:
            yield Item(
                id=f"debugbench-{number}-{row['bug_type'].replace(' ', '-')}",
                module="solution",
                code=code,
                reference=reference,
                support="from solution import Solution\n",
                checks=tuple(checks),
                pattern=_PATTERNS.get(row["bug_type"], "other"),
            )


def _example(text: str, methods: list[str]) -> str:
    """The worked example "Input: n = 12, k = 3 Output: 3" as a check; empty when it is not of that form."""
    found = re.search(r"Input:?\s*(.*?)\s*Output:?\s*(.*?)\s*(?:Explanation|$)", text, re.DOTALL)
    if not found or not methods:
        return ""
    given, expected = (re.sub(r"\btrue\b", "True", re.sub(r"\bfalse\b", "False", part)) for part in found.groups())
    given, expected = (re.sub(r"\bnull\b", "None", part) for part in (given, expected))
    check = f"assert Solution().{methods[0]}({given}) == {expected}"
    return check if parses(check) and parses(f"x = {expected}") and "=" in given else ""


_READERS: dict[str, Callable[[list[Row]], Iterator[Item]]] = {
    "humaneval": _humaneval,
    "mbpp": _mbpp,
    "cruxeval": _cruxeval,
    "codecontests": _codecontests,
    "exercism": _exercism,
    "refactory": _refactory,
    "debugbench": _debugbench,
}

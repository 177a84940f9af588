"""Set (b): a hundred seeded items of each executable public benchmark, as small projects with a bug.

Where a benchmark holds wrong programs (refactory, debugbench) they are the bugs; into the correct programs of the
others a proven bug is injected. The manifest holds ids and edits only; the texts stay in the benchmarks' folder.
"""

from __future__ import annotations

import ast
import json
import textwrap
from functools import partial
from pathlib import Path
from typing import Any

from riallm.code.edit import Edit
from riallm.core.errors import UsageError
from riallm.data.inject import apply_edits, reverse_edits
from riallm.eval.bug import Bug, digest_of
from riallm.eval.sets.benchmark_items import FILES, Absent, Item, filled, items

__all__ = ["MANIFEST", "NAMES", "Absent", "load"]

NAMES = tuple(FILES)
MANIFEST = Path(__file__).parent / "benchmarks.jsonl"


def load(name: str, data: Path | None, manifest: Path = MANIFEST) -> list[Bug]:
    """The bugs of one benchmark. Raises Absent when its data is not here, UsageError when it is not what it was."""
    found = {item.id: item for item in items(name, data)}
    bugs = []
    for line in manifest.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["set"] == name:
            if row["item"] not in found:
                raise UsageError(f"{name} has no item {row['item']}: the data is another version of the set")
            bugs.append(bug_of(row, found[row["item"]]))
    return bugs


def edits_of(row: dict[str, Any], item: Item) -> tuple[Edit, ...]:
    """The edits of a manifest line, with the texts that they replace."""
    return tuple(
        Edit(
            path=f"{item.module}.py",
            start=edit["start"],
            original=item.code[edit["start"] : edit["start"] + edit["length"]],
            text=edit["text"],
            line=edit["line"],
            operator=edit["operator"],
        )
        for edit in row["edits"]
    )


def bug_of(row: dict[str, Any], item: Item) -> Bug:
    """The project of one manifest line."""
    edits = edits_of(row, item)
    fixed = item.reference or item.code
    buggy = item.code if item.reference else apply_edits(item.code, edits)
    visible = set(row["visible"])
    shown: tuple[str, ...]
    hidden: tuple[str, ...]
    withheld: tuple[str, ...]
    files = {f"{item.module}.py": (buggy, fixed)}
    if item.test_file:
        tests = {item.test_file: item.support}
        shown, hidden = (item.test_file,), (item.test_file,)
        withheld = tuple(name for at, name in enumerate(item.names) if at not in visible)
    else:
        checks = dict(enumerate(filled(item, row.get("recorded", {}))))
        tests = {
            f"tests/test_{part}.py": text_of_tests(item, {at: checks[at] for at in checks if (at in visible) == shows})
            for part, shows in (("visible", True), ("hidden", False))
        }
        shown, withheld = ("tests/test_visible.py",), ()
        hidden = tuple(tests)
    for path, text in tests.items():
        files[path] = (text, text)
    return Bug(
        id=item.id,
        set=row["set"],
        pattern=row["pattern"],
        injector=row["injector"],
        write=partial(write, files),
        visible=shown,
        hidden=hidden,
        withheld=withheld,
        gold=() if item.reference else reverse_edits(edits),
        digest=digest_of(row, files),
    )


def write(files: dict[str, tuple[str, str]], folder: Path, fixed: bool) -> None:
    """Write the project: path -> (text with the bug, correct text)."""
    for path, texts in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(texts[fixed], encoding="utf-8")


def text_of_tests(item: Item, checks: dict[int, str]) -> str:
    """A test file with one test a check."""
    parts = [item.support.rstrip() + "\n"]
    for at, check in checks.items():
        body = textwrap.indent(ast.unparse(ast.parse(check)), "    ")
        parts.append(f"\n\ndef test_{at}():\n{body}\n")
    return "".join(parts)

"""Thirty bugs that need no network: injected into copies of the running interpreter's own pure-Python modules.

The tests are ours (`smoke_tests/`). A line of the manifest holds a function's text and where in it the edits stand;
where another version of Python has written the function otherwise, the item is left out, and said so.

    python -m riallm.eval.sets.smoke [--num 30] [--seed 1]      makes the manifest anew
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from riallm.code.edit import Edit
from riallm.code.source import Function, Source
from riallm.core.errors import UsageError
from riallm.core.files import atomic_write, sha256
from riallm.data.inject import UNLIKE_NAMES, Injection, functions_of, inject, reverse_edits
from riallm.data.inject_pattern import refine
from riallm.data.inject_site import Library
from riallm.eval.bug import Bug, digest_of
from riallm.eval.sets.injected import write
from riallm.eval.verify import Baseline, Proof, baseline, prove
from riallm.sandbox import open_sandbox

MODULES = ("calendar", "colorsys", "fnmatch", "fractions", "graphlib", "ipaddress", "shlex", "textwrap")
HERE = Path(__file__).parent
MANIFEST = HERE / "smoke.jsonl"
UNLIKE_SHARE = 0.5


def module_text(name: str) -> bytes:
    """Source of a standard-library module; UsageError where the interpreter keeps none."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise UsageError(f"this Python has no source of its module {name}; the smoke set needs it")
    return Path(spec.origin).read_bytes()


def project(name: str, root: Path) -> Path:
    """The correct project of one module below `root`: `library/NAME.py` and two test files."""
    text = module_text(name)
    tests = [(HERE / "smoke_tests" / f"{kind}_{name}.txt").read_bytes() for kind in ("check", "more")]
    folder = root / f"{name}-{sha256(b''.join([text, *tests]))[:12]}"
    if not folder.is_dir():
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".making-") as scratch:
            made = Path(scratch) / "project"
            for path, data in (
                ("library/__init__.py", b""),
                (f"library/{name}.py", text),
                (f"tests/test_{name}.py", tests[0]),
                (f"tests/test_more_{name}.py", tests[1]),
            ):
                (made / path).parent.mkdir(parents=True, exist_ok=True)
                (made / path).write_bytes(data)
            if not folder.is_dir():
                made.rename(folder)
    return folder


def parsed(name: str, folder: Path) -> Source:
    """The module's file in its project."""
    path = f"library/{name}.py"
    return Source.parse(path, (folder / path).read_bytes())


def function_text(source: Source, function: Function) -> tuple[int, str]:
    """(start, text) of a function with its decorators."""
    start, end = source.item_span(function)
    return start, source.text[start:end]


def load(data: Path, manifest: Path = MANIFEST) -> list[Bug]:
    """The bugs of the manifest that this Python's modules can hold."""
    bugs = []
    folders = {name: project(name, data / "smoke") for name in MODULES}
    sources = {name: parsed(name, folder) for name, folder in folders.items()}
    for line in manifest.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        name = row["module"]
        functions = dict(functions_of(sources[name]))
        function = functions.get(row["function"])
        if function is None:
            continue
        start, text = function_text(sources[name], function)
        if sha256(text.encode())[:16] != row["text"]:
            continue
        edits = tuple(
            Edit(
                path=f"library/{name}.py",
                **{**edit, "start": edit["start"] + start, "line": edit["line"] + function.lineno},
            )
            for edit in row["edits"]
        )
        bugs.append(
            Bug(
                id=row["id"],
                set="smoke",
                pattern=row["pattern"],
                injector=row["injector"],
                write=partial(write, folders[name], f"library/{name}.py", edits),
                visible=(f"tests/test_{name}.py",),
                hidden=(f"tests/test_{name}.py", f"tests/test_more_{name}.py"),
                gold=reverse_edits(edits),
                digest=digest_of(row, folders[name].name),
                notes={"truth": digest_of("smoke", folders[name].name)},
            )
        )
    return bugs


def placed(path: str, edit: dict[str, Any], start: int, line: int) -> Edit:
    """An edit of the manifest, whose positions are relative to its function, in the file at hand."""
    return Edit(path=path, **{**edit, "start": edit["start"] + start, "line": edit["line"] + line})


def make(num: int, seed: int, data: Path) -> list[dict[str, object]]:
    """Draw and prove bugs, the modules in turn, half of them by injectors unlike the operators."""
    folders = {name: project(name, data) for name in MODULES}
    sources = {name: parsed(name, folder) for name, folder in folders.items()}
    library = Library.of(sources.values())
    bases: dict[str, tuple[Baseline, Baseline]] = {}
    rows: list[dict[str, object]] = []
    used: Counter[str] = Counter()
    number = 0
    while len(rows) < num:
        number += 1
        draw = random.Random(f"{seed}:{number}")
        name = min(MODULES, key=lambda name: (used[name], name))
        folder, source = folders[name], sources[name]
        visible = [f"tests/test_{name}.py"]
        if name not in bases:
            bases[name] = (
                baseline(folder, visible, opener=open_sandbox, seconds=30),
                baseline(folder, ["tests"], opener=open_sandbox, seconds=30, calls=False),
            )
        covered = set().union(*bases[name][0].outcomes.entered.values())
        unlike = sum(str(row["injector"]).startswith("unlike") for row in rows) < UNLIKE_SHARE * (len(rows) + 1)
        injector = f"unlike:{draw.choice(UNLIKE_NAMES)}" if unlike else "operator"
        found = [(n, f) for n, f in functions_of(source) if (source.path, f.lineno) in covered]
        qualified, function = draw.choice(found)
        made = inject(source, function, qualified, library=library, injector=injector, draw=draw)
        if made is None or used[f"{made.injector}"] >= 3 or used[f"{name}.{qualified}"] >= 2:
            continue
        proof = prove(folder, source, made, visible, bases[name][0], opener=open_sandbox)
        if isinstance(proof, str):
            continue
        rows.append(row_of(f"{name}-{number}", name, source, function, made, proof))
        used.update([name, made.injector, f"{name}.{qualified}"])
        sys.stderr.write(f"{len(rows)}/{num} {rows[-1]['id']} {made.injector}\n")
    return rows


def row_of(
    identity: str, name: str, source: Source, function: Function, made: Injection, proof: Proof
) -> dict[str, object]:
    """One line of the manifest; positions are relative to the function."""
    start, text = function_text(source, function)
    edits = [replace(edit, start=edit.start - start, line=edit.line - function.lineno) for edit in made.edits]
    return {
        "id": identity,
        "module": name,
        "function": made.function,
        "text": sha256(text.encode())[:16],
        "injector": made.injector,
        "pattern": refine(made.pattern, proof.messages),
        "edits": [{k: v for k, v in asdict(edit).items() if k not in ("path", "prior")} for edit in edits],
        "red": len(proof.red),
    }


def main(argv: list[str] | None = None) -> int:
    """Make the manifest."""
    parser = argparse.ArgumentParser(prog="python -m riallm.eval.sets.smoke", description="make the smoke manifest")
    parser.add_argument("--num", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="riallm-smoke-") as scratch:
        rows = make(args.num, args.seed, Path(scratch))
    atomic_write(MANIFEST, "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows).encode())
    sys.stdout.write(json.dumps({"manifest": str(MANIFEST), "bugs": len(rows)}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

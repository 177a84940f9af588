"""Makes the manifest of set (b): `python -m riallm.eval.sets.make_benchmarks [--data DIR] [--set NAME] [--num 100]`.

Programs run in the sandbox by the hundred, a fork each (`eval/inside_checks`), under two hash seeds. A bug is kept
when a visible check turns red and nothing hangs; visible are every second check, or the other half where the first
shows nothing. Half of the injected bugs come from injectors unlike the operators.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from riallm.code.source import Source
from riallm.core.errors import BudgetError
from riallm.core.files import atomic_write
from riallm.data.inject import UNLIKE_NAMES, Injection, apply_edits, functions_of, inject
from riallm.data.inject_site import Library
from riallm.eval.runner import interpreter_prefixes
from riallm.eval.sets.benchmark_items import RECORD, Item, filled, items
from riallm.eval.sets.benchmarks import MANIFEST, NAMES
from riallm.sandbox import open_sandbox
from riallm.sandbox.base import MEGABYTE, Limits, Policy

Program = tuple[str, str, str, Sequence[str]]
BATCH = 60
TRIES = 16
SCRIPT = Path(__file__).parents[1] / "inside_checks.py"
MARK = "@@checks "


def letters(programs: Sequence[Program], hash_seed: int) -> list[str]:
    """How each program does on each of its checks; run in the sandbox. Raises BudgetError when a batch is stopped."""
    found: list[str] = []
    with tempfile.TemporaryDirectory(prefix="riallm-checks-") as folder:
        for at in range(0, len(programs), BATCH):
            batch = programs[at : at + BATCH]
            policy = Policy(
                workspace=Path(folder),
                readable=interpreter_prefixes(),
                env={"PYTHONHASHSEED": str(hash_seed)},
                limits=Limits(seconds=900.0, memory_bytes=2048 * MEGABYTE, output_bytes=16 * MEGABYTE),
            )
            with open_sandbox(policy) as sandbox:
                done = sandbox.exec([sys.executable, "-c", SCRIPT.read_text()], stdin=json.dumps(batch).encode())
            lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
            if not lines:
                raise BudgetError(f"a batch of programs was stopped ({done.stopped}): {done.stderr[-500:]}")
            found += json.loads(lines[-1][len(MARK) :])
    return found


def recorded(chosen: Sequence[Item]) -> dict[str, dict[str, str]]:
    """For each item, position of a check -> what the correct program gives there; what it cannot do is left out."""
    wanted = {
        item.id: {at: check.removeprefix(RECORD) for at, check in enumerate(item.checks) if check.startswith(RECORD)}
        for item in chosen
    }
    programs = [item for item in chosen if wanted[item.id]]
    values: dict[str, dict[str, str]] = {item.id: {} for item in chosen}
    results = evaluate([(item.code, list(wanted[item.id].values())) for item in programs]) if programs else []
    for item, found in zip(programs, results, strict=True):
        for at, value in zip(wanted[item.id], found, strict=True):
            if value and len(value) < 400:
                values[item.id][str(at)] = value
    return values


def evaluate(programs: Sequence[tuple[str, list[str]]]) -> list[list[str]]:
    """The literal that each call gives, "" where it raises or gives no literal."""
    script = (
        "import ast, json, sys\n"
        "def value(code, call):\n"
        "    try:\n"
        "        space = {}; exec(code, space); text = repr(eval(call, space))\n"
        "        return text if eval(call, space) == ast.literal_eval(text) else ''\n"
        "    except BaseException:\n"
        "        return ''\n"
        "told = [[value(code, call) for call in calls] for code, calls in json.load(sys.stdin)]\n"
        f"print({MARK!r} + json.dumps(told))\n"
    )
    with tempfile.TemporaryDirectory(prefix="riallm-record-") as folder:
        policy = Policy(workspace=Path(folder), readable=interpreter_prefixes(), limits=Limits(seconds=300.0))
        with open_sandbox(policy) as sandbox:
            done = sandbox.exec([sys.executable, "-c", script], stdin=json.dumps(programs).encode())
    line = next(line for line in done.stdout.splitlines() if line.startswith(MARK))
    return list(json.loads(line[len(MARK) :]))


def halves(num: int, red: Sequence[int]) -> list[int] | None:
    """The visible half of the checks: every second one, the half that shows the bug; None when nothing is red."""
    if num == 1:
        return [0] if red else None
    for begin in (0, 1):
        half = list(range(begin, num, 2))
        if any(at in red for at in half):
            return half
    return None


def reds(first: str, second: str, num: int) -> list[int] | None:
    """Checks that fail both times; None for a program that hangs, flickers or cannot be run."""
    if first != second or len(first) != num or "h" in first:
        return None
    return [at for at, letter in enumerate(first) if letter == "f"]


def real(name: str, found: Sequence[Item], num: int, draw: random.Random) -> list[dict[str, Any]]:
    """Wrong programs of a benchmark that fail a check which the reference passes."""
    chosen = draw.sample(list(found), min(len(found), 3 * num))
    wrong = [(item.module, item.code, item.support, item.checks) for item in chosen]
    right = [(item.module, item.reference, item.support, item.checks) for item in chosen]
    runs = [letters(wrong, 1), letters(wrong, 2), letters(right, 1)]
    rows: list[dict[str, Any]] = []
    for item, one, two, good in zip(chosen, *runs, strict=True):
        red = reds(one, two, len(item.checks))
        visible = halves(len(item.checks), red) if red and good == "p" * len(item.checks) else None
        if visible is not None and len(rows) < num:
            row = {"set": name, "item": item.id, "injector": "real", "pattern": item.pattern, "edits": []}
            rows.append({**row, "visible": visible})
    return rows


def injected(name: str, found: Sequence[Item], num: int, draw: random.Random) -> list[dict[str, Any]]:
    """Correct programs with a proven bug, half of them by injectors unlike the operators."""
    pool = draw.sample(list(found), min(len(found), int(1.6 * num)))
    values = recorded(pool)
    checks = {item.id: filled(item, values[item.id]) for item in pool}
    right = [(item.module, item.code, item.support, checks[item.id]) for item in pool]
    good = [both == "p" * len(row[3]) for both, row in zip(letters(right, 1), right, strict=True)]
    pool = [item for item, fine in zip(pool, good, strict=True) if fine and checks[item.id]]
    sources = {item.id: Source.from_text(f"{item.module}.py", item.code) for item in pool}
    library = Library.of(sources.values())
    made: list[tuple[Item, Injection, list[Program]]] = []
    for at, item in enumerate(pool):
        for _ in range(TRIES):
            injector = "operator" if at % 2 else f"unlike:{draw.choice(UNLIKE_NAMES)}"
            functions = functions_of(sources[item.id])
            if not functions:
                break
            qualified, function = draw.choice(functions)
            bug = inject(sources[item.id], function, qualified, library=library, injector=injector, draw=draw)
            if bug is not None:
                texts = [apply_edits(item.code, bug.edits)]
                texts += [apply_edits(item.code, [edit]) for edit in bug.edits] if len(bug.edits) > 1 else []
                made.append((item, bug, [(item.module, text, item.support, checks[item.id]) for text in texts]))
    flat = [program for _, _, programs in made for program in programs]
    both = iter(zip(letters(flat, 1), letters(flat, 2), strict=True))
    rows: list[dict[str, Any]] = []
    used: Counter[str] = Counter()
    taken: set[str] = set()
    for item, bug, programs in made:
        results = [reds(*next(both), len(checks[item.id])) for _ in programs]
        if item.id in taken or not all(results) or used[bug.injector] >= 0.15 * num or len(rows) >= num:
            continue
        visible = halves(len(checks[item.id]), results[0] or [])
        if visible is None:
            continue
        taken.add(item.id)
        used[bug.injector] += 1
        edits = [
            {"start": e.start, "length": len(e.original), "text": e.text, "line": e.line, "operator": e.operator}
            for e in bug.edits
        ]
        row = {"set": name, "item": item.id, "injector": bug.injector, "pattern": bug.pattern, "edits": edits}
        extra = {"recorded": values[item.id]} if values[item.id] else {}
        rows.append({**row, "visible": visible, **extra})
    return rows


def main(argv: list[str] | None = None) -> int:
    """Command line; sets not named keep their lines."""
    parser = argparse.ArgumentParser(prog="python -m riallm.eval.sets.make_benchmarks", description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--set", action="append", choices=NAMES, help="only this set (repeatable)")
    parser.add_argument("--num", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    chosen = args.set or list(NAMES)
    kept = [json.loads(line) for line in MANIFEST.read_text().splitlines()] if MANIFEST.exists() else []
    told: dict[str, Any] = {}
    for name in chosen:
        found = items(name, args.data)
        draw = random.Random(f"{args.seed}:{name}")
        made = real if found[0].reference else injected
        rows: list[dict[str, Any]] = made(name, found, args.num, draw)
        kept = [row for row in kept if row["set"] != name] + rows
        told[name] = {"items": len(rows), "usable": len(found), "injectors": Counter(row["injector"] for row in rows)}
        kept.sort(key=lambda row: (NAMES.index(row["set"]), row["item"]))
        atomic_write(MANIFEST, "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in kept).encode())
        sys.stderr.write(f"{name}: {told[name]}\n")
    sys.stdout.write(json.dumps(told) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

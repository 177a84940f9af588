"""`riallm eval repair | bpb | infill | pass | memory`: measurements with their uncertainty, rivals side by side on the
same items."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from pathlib import Path
from typing import Any

from riallm.agent.repair.validate import Isolation
from riallm.cli import eval_model
from riallm.core.errors import UsageError
from riallm.core.files import atomic_write, cache_home

DESCRIPTION = "Measure the repair: fixed within so many candidates, plausible and correct apart, arms side by side."


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    top = argparse.ArgumentParser(prog="riallm eval", description="Measurements with their uncertainty.")
    tasks = top.add_subparsers(dest="task", required=True, metavar="TASK")
    eval_model.add(tasks)
    repair = tasks.add_parser("repair", help="bugs repaired, by arm", description=DESCRIPTION)
    add = repair.add_argument
    add("--set", required=True, metavar="NAME|DIR", help="a set by name, or a folder of projects with a bug.json")
    add(
        "--arms",
        default="B0,B1,B2",
        help="B0 random, B1 localisation and prior, B2 and the n-gram, B2F with fitted weights, B3 and a language "
        "model, B4 and its own edits (default: B0,B1,B2)",
    )
    add("--model", metavar="NAME|DIR", help="the language model of B3 and B4")
    add("--data", type=Path, help="fetched packages, or the benchmarks' folder (default: the cache folder)")
    add("--limit", type=int, metavar="N", help="only N items, drawn by the seed")
    add("--candidates", type=int, default=1000, metavar="K", help="of each arm's order, at most (default 1000)")
    add("--pool", type=int, default=5000, metavar="N", help="candidates proposed, at most (default 5000, as fix)")
    add("--seconds-per-bug", type=float, default=120.0, metavar="S", help="checking, all arms together (default 120)")
    add("--jobs", type=int, default=1, metavar="N", help="bugs at a time (default 1)")
    add("--out", type=Path, metavar="DIR", help="results, verdicts and the card; resumed when they are there")
    add("--seed", type=int, default=0, help="of the random arm, the draw and the resampling (default 0)")
    add("--unsafe", action="store_true", help="run without isolation when there is no sandbox")
    add("--json", action="store_true", help="no tables; the last line of stdout is one JSON object either way")
    return top


def main(argv: list[str]) -> int:
    """0 when everything was measured, 1 when an item ended by an error of ours, 2 for bad usage, 3 without sandbox."""
    options = parser().parse_args(argv)
    if options.task != "repair":
        return eval_model.run(options)
    from rich.console import Console

    from riallm.core.shipped import folder_of
    from riallm.eval import report
    from riallm.eval.sets.held_out import default_data
    from riallm.eval.sets.load import load
    from riallm.eval.tasks.repair import Settings, arms_of
    from riallm.eval.tasks.repair_metrics import figures
    from riallm.eval.tasks.repair_run import run

    try:
        arms = arms_of(options.arms)
    except ValueError as error:
        raise UsageError(f"--arms: {error}") from None
    if min(options.candidates, options.pool, options.jobs, options.limit or 1) < 1 or options.seconds_per_bug <= 0:
        raise UsageError("--candidates, --pool, --jobs, --limit and --seconds-per-bug must be positive")
    errors = Console(stderr=True)
    say = errors.print
    bugs = load(options.set, data=options.data or default_data(), say=say, limit=options.limit, seed=options.seed)
    if not bugs:
        raise UsageError(f"set {options.set} has no items on this machine; see docs/evaluation.md")
    name = Path(options.set).name
    out = options.out or cache_home() / "eval" / "runs" / name
    settings = Settings(
        arms=arms,
        candidates=options.candidates,
        pool=options.pool,
        seconds_per_bug=options.seconds_per_bug,
        model=folder_of(options.model) if options.model else None,
        seed=options.seed,
        isolation=Isolation(unsafe=options.unsafe),
    )
    began = time.monotonic()
    rows = with_progress(errors, bugs, lambda hear: run(bugs, settings, out, jobs=options.jobs, on_row=hear))
    found = figures(rows, arms=arms, deepest=options.candidates, seed=options.seed)
    facts = facts_of(options, len(bugs), rows, time.monotonic() - began)
    title = f"Repair on {name}"
    atomic_write(out / "card.md", report.markdown(found, title, facts).encode())
    if not options.json:
        report.show(found, Console(width=max(100, Console().width)), title)
    told = {"task": "repair", "set": name, "out": str(out), **facts, **found.as_json()}
    sys.stdout.write(json.dumps(finite(told), ensure_ascii=True) + "\n")
    for row in rows:
        if row["status"] == "error":
            sys.stderr.write(f"{row['id']}: error of ours\n{row['reason']}\n")
        elif row["status"] == "dropped":
            sys.stderr.write(f"{row['id']}: dropped, {row['reason']}\n")
    return 1 if found.num_errors else 0


def with_progress(console: Any, bugs: Any, work: Any) -> Any:
    """Run `work(hear)` under a progress bar on stderr; `hear` takes each finished row."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("bugs", total=len(bugs))
        return work(lambda row: progress.update(bar, advance=1, description=f"{row['id']} {row['status']}"))


def facts_of(options: argparse.Namespace, num: int, rows: Any, seconds: float) -> dict[str, Any]:
    """What the figures depend on."""
    from riallm.bench.card import machine

    tiers = sorted({row["tier"] for row in rows if row["status"] == "done"})
    return {
        "date": datetime.date.today().isoformat(),
        "command": f"riallm eval repair --set {options.set} --arms {options.arms} --candidates {options.candidates}"
        f" --pool {options.pool} --seconds-per-bug {options.seconds_per_bug:g} --jobs {options.jobs}"
        f" --seed {options.seed}"
        + (f" --limit {options.limit}" if options.limit else "")
        + (f" --model {options.model}" if options.model else ""),
        "items": num,
        **machine(),
        "sandbox": ", ".join(tiers) or "none used",
        "seconds_of_this_call": round(seconds, 1),
    }


def finite(value: Any) -> Any:
    """JSON has no NaN: what is not known becomes null."""
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value

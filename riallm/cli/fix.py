"""riallm fix: find the bug behind a failing test, and show a patch that the tests have verified.

Nothing is changed until --apply, or until you say y at the prompt. Exit codes: 0 verified patch, 1 none within
the budget, 2 nothing to repair or bad usage, 3 no sandbox.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from riallm.agent.audit import AuditLog
from riallm.agent.client import Client
from riallm.agent.local import LocalClient
from riallm.agent.repair.apply import apply, only_one
from riallm.agent.repair.program import Program
from riallm.agent.repair.project import discover
from riallm.agent.repair.records import Project
from riallm.agent.repair.run import Options, Outcome, counts, repair
from riallm.agent.repair.validate import Isolation
from riallm.cli.fix_view import View
from riallm.cli.picture import save_picture
from riallm.core.errors import RiallmError, UsageError
from riallm.core.shipped import DEFAULT, NGRAM, default, folder_of
from riallm.sandbox.base import Tier

MODEL = "RIALLM_MODEL"
"""Variable of the environment that names the model where no option does."""

STATUSES = {0: "repaired", 1: "no patch", 2: "nothing to repair", 3: "no sandbox", 130: "stopped"}


def parser() -> argparse.ArgumentParser:
    """The options; `docs/cli.md` is made from this."""
    made = argparse.ArgumentParser(
        prog="riallm fix", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("path", nargs="?", default=".", type=Path, help="the project's folder, or a test file in it")
    made.add_argument("--test", metavar="CMD", help="test command; pytest and unittest run warm, any other cold")
    made.add_argument(
        "--file", action="append", default=[], metavar="F", help="edit only this file (may be given several times)"
    )
    made.add_argument("--python", type=Path, metavar="PATH", help="interpreter for the tests")
    made.add_argument(
        "--model",
        default=os.environ.get(MODEL),
        metavar="NAME",
        help=f"what ranks and proposes: a model's name or folder, {NGRAM}, or none (default: ${MODEL}, else {DEFAULT} "
        f"where its libraries are, else {NGRAM})",
    )
    made.add_argument("--budget", type=float, default=120.0, metavar="SECONDS", help="time to look (default 120)")
    made.add_argument("--max-candidates", type=int, default=5000, metavar="N", help="edits to try (default 5000)")
    made.add_argument("--jobs", type=int, default=0, metavar="N", help="tests at a time (default: one a core)")
    made.add_argument("--apply", action="store_true", help="write the verified patch without asking")
    made.add_argument("--json", action="store_true", help="last line of stdout: one JSON object")
    made.add_argument("--seed", type=int, default=0, metavar="N", help="for hashes and ties (default 0)")
    made.add_argument("--tier", choices=[tier.value for tier in Tier if tier is not Tier.NONE], help="sandbox tier")
    made.add_argument("--unsafe", action="store_true", help="run without a sandbox when there is none; recorded")
    made.add_argument("--save-picture", type=Path, metavar="SVG", help="save what the terminal showed")
    return made


def main(argv: list[str]) -> int:
    """Run the command; the return value is the exit code."""
    options = parser().parse_args(argv)
    out = Console(stderr=options.json, highlight=False)
    if not out.is_terminal:
        out.soft_wrap = True  # what reads us wants whole lines
    if options.save_picture is not None:
        out = Console(record=True, highlight=False, width=110, force_terminal=True, stderr=options.json)
    view = View(out, Console(stderr=True, highlight=False))
    report: dict[str, Any] = {}
    try:
        check(options)
        code = fix(options, view, report)
    except KeyboardInterrupt:
        code = 130
        view.say("[yellow]Stopped; nothing was changed.[/]")
    except RiallmError as error:
        code = error.exit_code
        report["message"] = str(error)
        view.error(str(error))
    finally:
        view.close()
    if options.save_picture is not None:
        save_picture(out, options.save_picture, title=shlex.join(["riallm", "fix", str(options.path)]))
    if options.json:
        sys.stdout.write(json.dumps({"status": STATUSES.get(code, "error"), **EMPTY, **report}) + "\n")
    return code


EMPTY: dict[str, Any] = {
    "patch": "",
    "file": None,
    "line": None,
    "candidates_tried": 0,
    "candidates_plausible": 0,
    "seconds": 0.0,
    "model": None,
    "sandbox_tier": None,
    "tests_before": {},
    "tests_after": {},
}


def check(options: argparse.Namespace) -> None:
    """Refuse numbers that make no sense."""
    for name, least in (("budget", 1.0), ("max_candidates", 1), ("jobs", 0)):
        if getattr(options, name) < least:
            flag = "--" + name.replace("_", "-")
            raise UsageError(f"{flag} {getattr(options, name):g}: expected at least {least:g}")


def ranking(name: str | None) -> tuple[str, Client | None]:
    """(arm, client) for --model. Without a client the project's own n-gram model ranks alone."""
    name = name or default()
    if name == "none":
        return "prior", None
    if name == NGRAM:
        return "model", None
    return "model", LocalClient(folder_of(name))


def fix(options: argparse.Namespace, view: View, report: dict[str, Any]) -> int:
    """Discover, repair, show, ask, apply; fills `report` as it goes, and leaves a record of each step."""
    arm, client = ranking(options.model)
    project = discover(options.path, python=options.python, test=options.test, files=options.file)
    log = AuditLog(project.root)
    with only_one(project.root):
        log.append("start", argv=["fix", *map(str, sys.argv[2:])], root=str(project.root), python=str(project.python))
        view.project(project)
        settings = Options(
            budget=options.budget,
            max_candidates=options.max_candidates,
            arm=arm,
            seed=options.seed,
            num_workers=options.jobs or len(os.sched_getaffinity(0)),
            isolation=Isolation(tier=Tier(options.tier) if options.tier else None, unsafe=options.unsafe),
        )
        try:
            outcome = repair(project, settings, client=client, observer=view)
        except (RiallmError, KeyboardInterrupt) as error:
            log.append("stopped", why=str(error) or type(error).__name__)
            raise
        model = outcome.model if arm == "model" else "none"
        report.update(summary(outcome, model))
        log.append("searched", **{key: value for key, value in report.items() if key != "patch"})
        view.outcome(project, outcome, model)
        if outcome.candidate is None:
            return 1
        log.append("patch", patch=outcome.patch, file=report["file"], line=report["line"])
        settle(options, view, log, project, outcome)
    return 0


def summary(outcome: Outcome, model: str) -> dict[str, Any]:
    """The fields of --json."""
    edit = outcome.candidate.edit if outcome.candidate else None
    return {
        "patch": outcome.patch,
        "file": edit.path if edit else None,
        "line": edit.line if edit else None,
        "candidates_tried": outcome.num_tried,
        "candidates_plausible": outcome.num_plausible,
        "seconds": round(outcome.seconds, 3),
        "model": model,
        "sandbox_tier": outcome.tier.value,
        "tests_before": counts(outcome.evidence.runs),
        "tests_after": counts(outcome.after),
        "flaky": list(outcome.evidence.flaky),
    }


def settle(options: argparse.Namespace, view: View, log: AuditLog, project: Project, outcome: Outcome) -> None:
    """Apply the patch when told to: by --apply, or by y on a terminal."""
    assert outcome.candidate is not None
    said = "--apply" if options.apply else ""
    if not said and not options.json and sys.stdin.isatty() and sys.stdout.isatty():
        said = "y at the prompt" if view.ask("Apply this patch?") else ""
    if not said:
        log.append("left", why="not told to apply")
        view.say("Nothing was changed. Apply it with [bold]--apply[/].")
        return
    program = Program(project)
    program.source(outcome.candidate.edit.path)
    path = apply(program, outcome.candidate.edit)
    log.append("applied", file=str(path), by=said)
    view.say(f"[green]Applied[/] to {path.relative_to(project.root)}.")

"""The page about repaired upstream bugs: `python -m riallm.eval.tasks.repair_page RESULTS... [--arm B2]`.

Reads what `riallm eval repair --set upstream --out RESULTS` left, and prints Markdown: each repaired bug with our
patch beside upstream's. Of several folders the later ones replace what the earlier ones say of a bug.

A bug counts as repaired when the patch that `riallm fix` would offer passes the hidden tests, or, where the suite has
none to hide, when its syntax tree is upstream's.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from riallm.core.errors import RiallmError, UsageError
from riallm.core.files import sha256
from riallm.data import upstream

Row = Mapping[str, Any]
READ = Path(__file__).parents[1] / "sets" / "upstream_read.json"
"""What a person said who read a patch beside upstream's: `key(id, patch)` -> words. Tests are not the last word."""

HEAD = """# Upstream bugs that were repaired

Real bugs of released packages ([upstream_bugs.md](upstream_bugs.md) tells how they were found), each repaired by
`riallm fix` without knowing upstream's change. The tests that judge a patch were never shown to the repair. This page
is printed by

    riallm eval repair --set upstream --out RESULTS
    python -m riallm.eval.tasks.repair_page RESULTS > docs/upstream_repairs.md

"Correct" is what hidden tests say, and they are few in some projects. So each patch was also read beside upstream's.

"""


def key(name: str, patch: str) -> str:
    """What a reader's words belong to: the bug, and this patch of it and no other."""
    return f"{name} {sha256(patch.encode())[:8]}"


def repaired(row: Row, bug: upstream.Bug, arm: str) -> bool:
    """Whether the patch that this arm would offer is correct, by tests that it has not seen or by being upstream's."""
    told = row["arms"][arm]
    return bool(told["choice"] == "correct" and (bug.hidden or told["choice_exact"]))


def page(
    rows: Sequence[Row], bugs: Mapping[str, upstream.Bug], arm: str, said: Mapping[str, str], runs: Sequence[str]
) -> str:
    """The page as Markdown; `rows` are finished results with patches, `said` the words of a reader, `runs` what the
    results come from, a line each."""
    measured = [row for row in rows if row["status"] == "done"]
    good = [row for row in measured if repaired(row, bugs[row["id"]], arm)]
    late = [row for row in measured if row not in good and row["arms"][arm]["first_correct"] and bugs[row["id"]].hidden]
    wrong = [row for row in measured if row["arms"][arm]["choice"] == "wrong"]
    projects = {bugs[row["id"]].package for row in good}
    text = HEAD + (
        f"Of {len(measured)} bugs of {len({bugs[row['id']].package for row in measured})} projects, the offered patch "
        f"(arm {arm}) is correct for {len(good)}, of {len(projects)} projects: "
        f"{', '.join(sorted(projects)) or 'none'}. "
        f"For {len(late)} more a correct patch was among the candidates that were tried and another was offered; for "
        f"{len(wrong)} in all the offered patch fails a hidden test.\n\n"
    )
    text = textwrap.fill(text.removeprefix(HEAD), 118, break_on_hyphens=False, break_long_words=False)
    text = HEAD + text + "\n\n" + "".join(f"- {line}\n" for line in runs) + "\n"
    text += "| bug | candidate | seconds of checks | patch |\n| --- | ---: | ---: | --- |\n"
    for row in (*good, *late):
        told = row["arms"][arm]
        what = "upstream's own" if told["choice_exact"] else "another text" if row in good else "not offered"
        text += f"| {row['id']} | {told['first_correct']} | {told['seconds_to_correct']:.1f} | {what} |\n"
    for title, group, kind in (
        ("Repaired", good, "choice_patch"),
        ("A correct patch was tried, another offered", late, "correct_patch"),
    ):
        text += f"\n## {title}\n" if group else ""
        for row in group:
            bug = bugs[row["id"]]
            text += f"\n### {bug.id}\n\n{bug.package} {bug.version_before}, {bug.licence}; red: {bug.fixed_tests[0]}"
            text += f" and {len(bug.fixed_tests) - 1} more" if len(bug.fixed_tests) > 1 else ""
            patch = row["arms"][arm][kind]
            text += f". Ours:\n\n{fenced(patch)}\nUpstream's:\n\n{fenced(bug.hunk)}"
            text += f"\nRead beside each other: {said.get(key(bug.id, patch), 'not yet.')}\n"
    return text


def fenced(diff: str) -> str:
    """A diff without the names of its files, as a Markdown block."""
    lines = [line for line in diff.splitlines() if not line.startswith(("--- ", "+++ "))]
    return "```diff\n" + "\n".join(lines) + "\n```\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the page; 2 when the folder does not hold what it needs."""
    parser = argparse.ArgumentParser(prog="python -m riallm.eval.tasks.repair_page", description="repaired bugs")
    parser.add_argument("results", type=Path, nargs="+", help="--out folders of `riallm eval repair --set upstream`")
    parser.add_argument("--arm", default="B2", help="whose offered patch counts (default B2, what fix does)")
    args = parser.parse_args(argv)
    try:
        bugs = {bug.id: bug for bug in upstream.load()}
        rows, runs = dict[str, Row](), list[str]()
        for folder in args.results:
            found = read(folder, args.arm)
            rows |= {row["id"]: row for row in found}
            config = json.loads((folder / "config.json").read_text("utf-8"))
            runs.append(
                f"{len(found)} bugs with at most {config['candidates']} candidates an arm and "
                f"{config['seconds_per_bug']:g} s of checks for {', '.join(config['arms'])} together"
            )
        said = json.loads(READ.read_text("utf-8"))
        sys.stdout.write(page(list(rows.values()), bugs, args.arm, said, runs))
    except RiallmError as error:
        sys.stderr.write(f"repair_page: {error}\n")
        return error.exit_code
    return 0


def read(folder: Path, arm: str) -> list[Row]:
    """The last result of every bug; UsageError for a folder without results, or an arm that was not run."""
    path = folder / "results.jsonl"
    if not path.exists():
        raise UsageError(f"{path} is not there; run `riallm eval repair --set upstream --out {folder}` first")
    rows = {row["id"]: row for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())}
    for row in rows.values():
        if row["status"] == "done" and "choice_patch" not in row["arms"].get(arm, {}):
            raise UsageError(f"{path}: no patches of arm {arm} for {row['id']}; arms: {', '.join(row['arms'])}")
    return list(rows.values())


if __name__ == "__main__":
    sys.exit(main())

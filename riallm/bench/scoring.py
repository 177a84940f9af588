"""How long a model takes over candidates: `riallm bench scoring [--model NAME|DIR] [--candidates N]`.

The project is the one of `riallm.bench.repair_speed`; the candidates are those that `riallm fix` would try first.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from riallm.agent.local import LocalClient
from riallm.agent.repair import propose, rank
from riallm.agent.repair.localise import localise
from riallm.agent.repair.program import Program
from riallm.agent.repair.project import discover
from riallm.agent.repair.validate import Validator
from riallm.bench.card import Card, Figure, emit
from riallm.bench.repair_speed import example
from riallm.core.errors import BudgetError, RiallmError
from riallm.core.shipped import DEFAULT, folder_of


def main(argv: list[str]) -> int:
    """Measure, print the card."""
    parser = argparse.ArgumentParser(prog="riallm bench scoring", description="seconds to score candidates")
    parser.add_argument("--project", type=Path, help="a folder with a red test (default: an item of the smoke set)")
    parser.add_argument("--model", default=DEFAULT, help=f"a shipped model or a folder (default: {DEFAULT})")
    parser.add_argument("--candidates", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5, help="the median is over so many")
    options = parser.parse_args(argv)
    command = f"riallm bench scoring --model {options.model} --candidates {options.candidates}"
    try:
        with tempfile.TemporaryDirectory(prefix="riallm-scoring-") as scratch:
            folder = options.project or example(Path(scratch))
            figures = seconds(folder, folder_of(options.model), num=options.candidates, rounds=options.rounds)
    except RiallmError as error:
        sys.stderr.write(f"scoring: {error}\n")
        return error.exit_code
    emit(Card(name="scoring", command=command, figures=figures))
    return 0


def seconds(folder: Path, model: Path, *, num: int, rounds: int) -> dict[str, Figure]:
    """Seconds to read the model, to score the candidates, and to propose edits of its own."""
    program = Program(discover(folder))
    with Validator(program) as validator:
        evidence = validator.observe(60.0)
    suspects = localise(program, evidence)
    found = propose.propose(program, suspects, max_candidates=5000)
    asked = rank.order(program, found, arm="prior")[: min(num, rank.ASKED)]
    if not asked:
        raise BudgetError(f"{folder} gives no candidates, so there is nothing to time")
    began = time.monotonic()
    client = LocalClient(model)
    opened = time.monotonic() - began
    scored, proposed, own = [], [], 0
    for _ in range(rounds):
        began = time.monotonic()
        rank.likely_edits(program, asked, client)
        scored.append(time.monotonic() - began)
        began = time.monotonic()
        own = len(propose.from_model(program, suspects, client))
        proposed.append(time.monotonic() - began)
    return {
        "project": folder.name,
        "candidates": len(asked),
        "lines": len({(each.edit.path, each.edit.line) for each in asked}),
        "open_seconds": opened,
        "score_seconds": statistics.median(scored),
        "score_seconds_highest": max(scored),
        "candidates_a_second": len(asked) / statistics.median(scored),
        "own_edits": own,
        "propose_seconds": statistics.median(proposed),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

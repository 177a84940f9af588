"""How many candidates a second are validated: `python -m riallm.bench.validation [--project DIR] [--seconds S]`.

The candidates are those that a repair of the project would try, in its order; the search goes on past the first
patch that passes, to the end of the time. Starting the sandbox and the first look at the tests are told apart.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from pathlib import Path

from riallm.agent.ngram import NgramClient
from riallm.agent.repair import propose, rank
from riallm.agent.repair.localise import localise
from riallm.agent.repair.program import Program
from riallm.agent.repair.project import discover
from riallm.agent.repair.run import Observer, Search
from riallm.agent.repair.validate import Validator
from riallm.bench.card import Card, Figure, emit
from riallm.core.device import num_cores
from riallm.core.errors import BudgetError, RiallmError


def main(argv: list[str]) -> int:
    """Measure, print the card."""
    parser = argparse.ArgumentParser(prog="python -m riallm.bench.validation", description="candidates a second")
    parser.add_argument("--project", type=Path, default=Path("examples/semver"), help="a folder with a red test")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to validate")
    parser.add_argument("--workers", type=int, default=min(2, num_cores()), help="warm workers at a time")
    options = parser.parse_args(argv)
    try:
        figures = measure(options.project, seconds=options.seconds, num_workers=options.workers)
    except RiallmError as error:
        sys.stderr.write(f"validation: {error}\n")
        return error.exit_code
    command = f"python -m riallm.bench.validation --project {options.project} --workers {options.workers}"
    emit(Card(name="validation", command=command, figures=figures))
    return 0


def measure(folder: Path, *, seconds: float, num_workers: int) -> dict[str, Figure]:
    """Validate for `seconds`, over and over the candidates if they are too few.

    Raises ProjectError when the project has no red test, SandboxError without a sandbox.
    """
    program = Program(discover(folder))
    began = time.monotonic()
    with Validator(program, num_workers=num_workers) as validator:
        evidence = validator.observe(60.0)
        seen = time.monotonic()
        suspects = localise(program, evidence)
        client = NgramClient(program.texts(dict.fromkeys(suspect.path for suspect in suspects)))
        found = propose.propose(program, suspects, max_candidates=5000, client=client)
        ordered = rank.order(program, found, arm="model", client=client)
        proposed = time.monotonic()
        if not ordered:
            raise BudgetError(f"{folder} gives no candidates, so there is nothing to time")
        repeated = list(itertools.islice(itertools.cycle(ordered), 200_000))
        search = Search(validator, repeated, proposed + seconds, look_on=seconds)
        search.run(Observer(), proposed)
        spent = time.monotonic() - proposed
    return {
        "project": folder.name,
        "sandbox": str(validator.tier),
        "workers": num_workers,
        "tests": len(evidence.runs),
        "test_ms_median": 1000 * statistics.median(run.seconds for run in evidence.runs),
        "tests_a_candidate": len(validator.trial(ordered[0].edit).tests),
        "first_look_seconds": seen - began,
        "propose_and_rank_seconds": proposed - seen,
        "candidates": len(ordered),
        "validated": search.num_tried,
        "validated_a_second": search.num_tried / spent,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

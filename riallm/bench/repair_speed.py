"""Warm against cold, and memory: `riallm bench repair_speed [--project DIR] [--seconds S] [--rounds N]`.

The same candidates are checked by the warm workers and, a few of them, by a new sandbox and a new pytest each, as a
repair without workers would. Then `riallm fix` runs on the project and its memory is watched, its workers and what
runs in the sandbox included (pages shared by several processes are divided among them; files do not count).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
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
from riallm.core.shipped import NGRAM, default
from riallm.eval.runner import run_tests
from riallm.eval.sets import smoke
from riallm.eval.sets.held_out import default_data
from riallm.sandbox import open_sandbox
from riallm.sandbox.watch import descendants, memory_shared_out

POLL_SECONDS = 0.05
COLD = 8


def main(argv: list[str]) -> int:
    """Measure, print the card."""
    parser = argparse.ArgumentParser(prog="riallm bench repair_speed", description="warm, cold, memory")
    parser.add_argument("--project", type=Path, help="a folder with a red test (default: an item of the smoke set)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of warm checks in each round")
    parser.add_argument("--rounds", type=int, default=3, help="the medians are over so many")
    parser.add_argument("--workers", type=int, default=min(2, num_cores()), help="warm workers at a time")
    options = parser.parse_args(argv)
    command = f"riallm bench repair_speed --rounds {options.rounds} --workers {options.workers}"
    if options.project:
        command += f" --project {options.project}"
    try:
        with tempfile.TemporaryDirectory(prefix="riallm-speed-") as scratch:
            folder = options.project or example(Path(scratch))
            figures = checks(folder, seconds=options.seconds, rounds=options.rounds, num_workers=options.workers)
            figures |= memory(folder, NGRAM, "fix")
            if default() != NGRAM:
                figures |= memory(folder, default(), "fix_with_model")
    except RiallmError as error:
        sys.stderr.write(f"repair_speed: {error}\n")
        return error.exit_code
    emit(Card(name="repair-speed", command=command, figures=figures))
    return 0


def example(scratch: Path) -> Path:
    """A small project with a bug: the first item of the smoke set that this Python can hold."""
    bugs = smoke.load(default_data())
    if not bugs:
        raise BudgetError("the smoke set has no item for this Python; give --project DIR")
    folder = scratch / bugs[0].id
    folder.mkdir()
    bugs[0].write(folder, False)
    return folder


def checks(folder: Path, *, seconds: float, rounds: int, num_workers: int) -> dict[str, Figure]:
    """Candidates a second, warm and cold, medians over the rounds."""
    program = Program(discover(folder))
    with Validator(program, num_workers=num_workers) as validator:
        evidence = validator.observe(60.0)
        suspects = localise(program, evidence)
        client = NgramClient(program.texts(dict.fromkeys(suspect.path for suspect in suspects)))
        found = propose.propose(program, suspects, max_candidates=5000, client=client)
        ordered = rank.order(program, found, arm="model", clients=rank.Clients(cache=client))
        if not ordered:
            raise BudgetError(f"{folder} gives no candidates, so there is nothing to time")
        warm = []
        for _ in range(rounds):
            began = time.monotonic()
            search = Search(validator, ordered * 20, began + seconds, look_on=seconds)
            search.run(Observer(), began)
            warm.append(search.num_tried / (time.monotonic() - began))
    cold = []
    for candidate in ordered[:COLD]:
        path = folder / candidate.edit.path
        original = path.read_bytes()
        began = time.monotonic()
        path.write_bytes(program.edited(candidate.edit))
        try:
            run_tests(folder, [], opener=open_sandbox, seconds=60)
        finally:
            path.write_bytes(original)
        cold.append(1 / (time.monotonic() - began))
    return {
        "project": folder.name,
        "sandbox": str(validator.tier),
        "workers": num_workers,
        "tests": len(evidence.runs),
        "test_ms_median": 1000 * statistics.median(run.seconds for run in evidence.runs),
        "tests_ms_together": 1000 * sum(run.seconds for run in evidence.runs),
        "candidates": len(ordered),
        "warm_a_second": statistics.median(warm),
        "warm_a_second_lowest": min(warm),
        "cold_a_second": statistics.median(cold),
        "warm_over_cold": statistics.median(warm) / statistics.median(cold),
    }


def memory(folder: Path, model: str, name: str) -> dict[str, Figure]:
    """Peak of `riallm fix` on the folder: the command itself, and all its processes together. Mebibytes."""
    argv = [sys.executable, "-m", "riallm", "fix", str(folder), "--model", model, "--json", "--budget", "60"]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    alone = together = 0
    began = time.monotonic()
    while process.poll() is None:
        alone = max(alone, memory_shared_out([process.pid]))
        together = max(together, memory_shared_out([process.pid, *descendants(process.pid)]))
        time.sleep(POLL_SECONDS)
    return {
        f"{name}_exit_code": process.returncode,
        f"{name}_seconds": time.monotonic() - began,
        f"{name}_peak_mib": alone / 2**20,
        f"{name}_peak_mib_all_processes": together / 2**20,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

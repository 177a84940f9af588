"""Where the original text stands in each order, without trying a candidate: `python -m riallm.eval.tasks.repair_order`.

A bug costs one look at its tests and one scoring, seconds and not minutes, so that weights of the ranking can be
compared on many bugs. It is a proxy: it sees only bugs whose original text is among the candidates, and not that
another text may be as good. Weights are chosen on the injected set and then left alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from riallm.agent.repair import rank
from riallm.agent.repair.validate import Validator
from riallm.agent.shipped import folder_of
from riallm.core.errors import ProjectError, RiallmError
from riallm.core.workers import worker_begins
from riallm.eval.bug import Bug
from riallm.eval.sets.held_out import default_data
from riallm.eval.sets.load import load
from riallm.eval.stats import median, share
from riallm.eval.tasks.repair import ARMS, DEPTHS, Settings, program_of, proposals
from riallm.eval.tasks.repair_judge import Judge
from riallm.eval.tasks.repair_store import Verdicts

Weights = tuple[float, float]
"""Of the n-gram, and of the model's edits."""

NGRAM_WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
EDIT_WEIGHTS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5)


def ranks(bug: Bug, weights: Sequence[Weights], model: Path | None) -> dict[str, Any]:
    """{"id", "pool", "ranks": rank of the original text under each pair of weights}; no ranks out of reach."""
    settings = Settings(model=model, arms=("B4",) if model else ("B2",))
    with tempfile.TemporaryDirectory(prefix="riallm-order-") as name:
        scratch = Path(name)
        judge = Judge(bug, Verdicts(scratch / "verdicts.sqlite"), scratch, settings.isolation)
        judge.write()
        folder = scratch / "project"
        folder.mkdir()
        bug.write(folder, False)
        program = program_of(bug, folder)
        try:
            with Validator(program, isolation=settings.isolation) as validator:
                evidence = validator.observe(settings.observe_seconds)
        except ProjectError as error:
            return {"id": bug.id, "dropped": str(error)[:200], "ranks": []}
        pool = proposals(program, evidence, settings)
        found, _, known = pool.of(ARMS[settings.arms[0]])
        wanted = judge.original(found)
        if wanted is None:
            return {"id": bug.id, "pool": len(found), "ranks": []}
        stood = []
        for of_ngram, of_edits in weights:
            scores = [rank.score(each, known, of_ngram, of_edits) for each in found]
            own = rank.score(wanted, known, of_ngram, of_edits)
            stood.append(1 + sum(score > own for score in scores))
        return {"id": bug.id, "pool": len(found), "ranks": stood}


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line for each bug to stderr, the table to stdout, and the figures as one JSON object last."""
    parser = argparse.ArgumentParser(prog="python -m riallm.eval.tasks.repair_order", description="orders compared")
    parser.add_argument("--set", default="injected", help="the set (default: injected)")
    parser.add_argument("--data", type=Path, default=default_data(), help="as for riallm eval repair")
    parser.add_argument("--limit", type=int, help="only N items, drawn by the seed")
    parser.add_argument("--model", help="a model that ranks and proposes as well (default: the n-gram alone)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args(argv)
    try:
        bugs = load(args.set, data=args.data, say=lambda text: print(text, file=sys.stderr), limit=args.limit)  # noqa: T201
        rows = []
        model = folder_of(args.model) if args.model else None
        weights = [(one, other) for one in NGRAM_WEIGHTS for other in (EDIT_WEIGHTS if model else (0.0,))]
        with ProcessPoolExecutor(max_workers=args.jobs, initializer=worker_begins) as pool:
            for row in pool.map(partial(ranks, weights=weights, model=model), bugs):
                rows.append(row)
                sys.stderr.write(json.dumps(row) + "\n")
    except RiallmError as error:
        sys.stderr.write(f"repair_order: {error}\n")
        return error.exit_code
    reached = [row["ranks"] for row in rows if row["ranks"]]
    table: dict[str, Any] = {}
    sys.stdout.write(f"{len(rows)} bugs, original text among the candidates for {len(reached)}\n")
    for at, (of_ngram, of_edits) in enumerate(weights):
        weight = f"{of_ngram:.1f} {of_edits:.1f}"
        stood = [row[at] for row in reached]
        table[weight] = {
            "median": asdict(median(stood, seed=args.seed)),
            **{f"within {depth}": asdict(share(sum(one <= depth for one in stood), len(stood))) for depth in DEPTHS},
        }
        within = "  ".join(
            f"@{depth} {100 * sum(one <= depth for one in stood) / max(1, len(stood)):5.1f}" for depth in DEPTHS
        )
        sys.stdout.write(f"n-gram and edits {weight}: median rank {table[weight]['median']['value']:6.1f}   {within}\n")
    sys.stdout.write(json.dumps({"set": args.set, "bugs": len(rows), "reached": len(reached), "weights": table}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

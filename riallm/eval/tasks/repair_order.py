"""The weights of the ranking, fitted: `python -m riallm.eval.tasks.repair_order --model ria-nano --out DIR`.

Of each bug of the set "calibration" it is written down what is known of every candidate, without trying one: one look
at the tests and one asking of the clients, seconds a bug. Then the weights are fitted that put the original text early
(the mean logarithm of its rank, made smooth), and judged on packages that the fit has not seen. It is a proxy: it sees
only bugs whose original text is among the candidates, and not that another text may be as good. What is written down
is not asked again, so that a run goes on where it was stopped; ask anew, in another folder, for another model.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riallm.agent.client import INFILL, EditScore
from riallm.agent.repair.rank import CACHE, EDIT_RANGE, MODEL, PRIOR, RANGE, SMELL_PENALTY, Weights
from riallm.agent.repair.validate import Validator
from riallm.core.errors import ProjectError, RiallmError
from riallm.core.shipped import folder_of
from riallm.core.workers import worker_begins
from riallm.eval.bug import Bug
from riallm.eval.sets.held_out import default_data
from riallm.eval.sets.load import load
from riallm.eval.stats import share
from riallm.eval.tasks.repair import Settings, program_of, proposals
from riallm.eval.tasks.repair_judge import Judge
from riallm.eval.tasks.repair_store import Verdicts

if TYPE_CHECKING:
    from torch import Tensor

TERMS = ("suspicion", *(each.name for each in fields(Weights)))
"""What each row of numbers holds; a last one says whether the candidate smells."""

ARMS: dict[str, tuple[Weights, bool]] = {"B1": (PRIOR, False), "B2": (CACHE, False), "B4": (MODEL, True)}
"""Arm -> its weights today, and whether the model's own edits are among its candidates. B3 has those of B4."""

DEPTHS = (1, 10, 50, 200)
STEPS = 150
PULL = 0.02
"""How strongly weights are held near those of today; a few dozen bugs decide on five of them."""


def known(bug: Bug, model: Path | None) -> dict[str, Any]:
    """One bug's line: "rows", the terms of every candidate; "own", whether only the model has it; "wanted", which one
    is the original text. Without them where the tests cannot be run, or no candidate is the original text."""
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
            return {"id": bug.id, "dropped": str(error)[:200]}
        pool = proposals(program, evidence, settings)
        operators = {each.key for each in pool.found}
        every = list({each.key: each for each in (*pool.from_model, *pool.found)}.values())
        wanted = judge.original(every)
        if wanted is None:
            return {"id": bug.id, "candidates": len(every)}
        said, rows = pool.opinions, []
        for each in every:
            edit = said.edits.get(each.key, EditScore(place=0.0, text=0.0))
            gain = max(-RANGE, min(RANGE, said.gains.get(each.key, 0.0)))
            terms = [math.log(each.suspicion), math.log(max(each.edit.prior, 1e-12)), gain]
            terms += [max(-EDIT_RANGE, edit.place), max(-EDIT_RANGE, edit.text)]
            terms += [float(each.edit.operator == INFILL), float(bool(each.smells))]
            rows.append([round(term, 4) for term in terms])
        at = next(at for at, each in enumerate(every) if each.key == wanted.key)
        own = [each.key not in operators for each in every]
        return {"id": bug.id, "candidates": len(every), "rows": rows, "own": own, "wanted": at}


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One bug as an arm sees it. terms: (N, 6) of N candidates; smells: (N,), what they cost."""

    package: str
    terms: Tensor
    smells: Tensor
    wanted: int

    def scores(self, weights: Tensor) -> Tensor:
        """(N,)"""
        return self.terms @ weights - self.smells


def items(lines: Sequence[dict[str, Any]], proposes: bool) -> Iterator[Item]:
    """The bugs whose original text is among an arm's candidates."""
    import torch

    for line in lines:
        if "rows" not in line or (line["own"][line["wanted"]] and not proposes):
            continue
        kept = [at for at, own in enumerate(line["own"]) if proposes or not own]
        rows = torch.tensor([line["rows"][at] for at in kept])
        yield Item(
            package=line["id"].rpartition("-")[0],
            terms=rows[:, :-1],
            smells=SMELL_PENALTY * rows[:, -1],
            wanted=kept.index(line["wanted"]),
        )


def vector(weights: Weights) -> Tensor:
    """(6,) as in TERMS."""
    import torch

    return torch.tensor([1.0, *asdict(weights).values()])


def fit(bugs: Sequence[Item], begun: Weights) -> Weights:
    """The weights that put the original texts early; a term that weighs nothing in `begun` stays out, but for the
    model's own edits, whose term stands for a prior."""
    import torch

    start = 3.0 * vector(begun)  # a scale at which a rank is smooth, yet counts
    used = (start != 0).float()
    used[TERMS.index("own")] = float(begun.text > 0)
    weights = start.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([weights], lr=0.03)
    for _ in range(STEPS):
        optimiser.zero_grad()
        loss = PULL * ((weights - start) ** 2).sum()
        for bug in bugs:
            scores = bug.scores(weights * used)
            loss = loss + torch.log(torch.sigmoid(scores - scores[bug.wanted]).sum() + 0.5) / len(bugs)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    found = (weights * used).detach()
    return Weights(**{name: float(value / found[0]) for name, value in zip(TERMS[1:], found[1:], strict=True)})


def ranks(bugs: Sequence[Item], weights: Weights) -> list[int]:
    """Where the original text stands, from one."""
    found = []
    for bug in bugs:
        scores = bug.scores(vector(weights))
        found.append(1 + int((scores > scores[bug.wanted]).sum()))
    return found


def crossed(bugs: Sequence[Item], begun: Weights) -> list[int]:
    """Ranks by weights that were fitted to the bugs of the other packages."""
    found = []
    for package in sorted({bug.package for bug in bugs}):
        weights = fit([bug for bug in bugs if bug.package != package], begun)
        found += ranks([bug for bug in bugs if bug.package == package], weights)
    return found


def figures(stood: Sequence[int], num: int) -> dict[str, Any]:
    """Of `num` bugs: the geometric mean of the ranks, and the shares within each depth; what is out of reach counts."""
    mean = math.exp(sum(map(math.log, stood)) / len(stood)) if stood else None
    within = {f"within {depth}": asdict(share(sum(one <= depth for one in stood), num)) for depth in DEPTHS}
    return {"bugs": num, "reached": len(stood), "geometric mean rank": mean, **within}


def gathered(bugs: Sequence[Bug], model: Path | None, path: Path, jobs: int) -> list[dict[str, Any]]:
    """Every bug's line, those that `path` has already among them."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {line["id"] for line in lines}
    left = [bug for bug in bugs if bug.id not in done]
    with path.open("a") as file, ProcessPoolExecutor(jobs, initializer=worker_begins) as pool:
        for line in pool.map(partial(known, model=model), left):
            lines.append(line)
            file.write(json.dumps(line) + "\n")
            file.flush()
            sys.stderr.write(f"{len(lines)}/{len(done) + len(left)} {line['id']}\n")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Print the weights and the table, and all figures as one JSON object last."""
    parser = argparse.ArgumentParser(prog="python -m riallm.eval.tasks.repair_order", description="weights fitted")
    parser.add_argument("--set", default="calibration", help="the set (default: calibration)")
    parser.add_argument("--data", type=Path, default=default_data(), help="as for riallm eval repair")
    parser.add_argument("--limit", type=int, help="only N items, drawn by the seed")
    parser.add_argument("--model", help="a model that ranks and proposes as well (default: the n-gram alone)")
    parser.add_argument("--out", type=Path, required=True, help="folder for what was asked; resumed when it is there")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args(argv)
    try:
        model = folder_of(args.model) if args.model else None
        bugs = load(args.set, data=args.data, say=lambda text: print(text, file=sys.stderr), limit=args.limit)  # noqa: T201
        args.out.mkdir(parents=True, exist_ok=True)
        lines = gathered(bugs, model, args.out / "known.jsonl", args.jobs)
    except RiallmError as error:
        sys.stderr.write(f"repair_order: {error}\n")
        return error.exit_code
    lines = [line for line in lines if "dropped" not in line]
    report: dict[str, Any] = {"set": args.set, "model": args.model}
    for arm, (today, proposes) in ARMS.items():
        if proposes and model is None:
            continue
        found = list(items(lines, proposes))
        fitted = fit(found, today)
        told = {
            "today": figures(ranks(found, today), len(lines)),
            "fitted to the other packages": figures(crossed(found, today), len(lines)),
            "fitted": figures(ranks(found, fitted), len(lines)),
        }
        report[arm] = {"weights": asdict(fitted), **told}
        weights = "  ".join(f"{name} {value:.2f}" for name, value in asdict(fitted).items())
        sys.stdout.write(f"{arm}: {weights}\n")
        for name, figure in told.items():
            within = "  ".join(f"@{depth} {100 * figure[f'within {depth}']['value']:5.1f}" for depth in DEPTHS)
            mean = figure["geometric mean rank"] or math.nan
            sys.stdout.write(f"  {name:30} {figure['reached']} of {figure['bugs']}  mean rank {mean:6.1f}  {within}\n")
    sys.stdout.write(json.dumps(report) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

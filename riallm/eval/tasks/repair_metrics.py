"""From the lines of a results file to figures with their uncertainty."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from riallm.eval.bug import PATTERNS
from riallm.eval.stats import Difference, Estimate, compare, median, share
from riallm.eval.tasks.repair import DEPTHS

COMPARED = (
    "Shares: Wilson's score interval. Medians: bootstrap over items. Differences: paired bootstrap over the same "
    "items, with the exact McNemar p-value. Medians are over the items that the arm solved."
)
REACH = ("original text not among the candidates", "original text among the candidates")
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmFigures:
    """fixed: "plausible" | "correct" -> depth -> share of items. chosen: the patch that `fix` would offer is correct;
    exact: it gives the original program; precision: of the patches that `fix` would offer, those that are correct."""

    fixed: dict[str, dict[int, Estimate]]
    chosen: Estimate
    exact: Estimate
    precision: Estimate
    candidates: Estimate
    candidates_any: Estimate
    seconds: Estimate
    unchecked: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """A part of the items and the share of each arm that was repaired correctly."""

    name: str
    num: int
    correct: dict[str, Estimate]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """All figures of a run.

    differences: (first arm, second arm, "plausible" | "correct" | "correct, KIND of bug", depth) -> difference.
    only: (one arm, another) -> ids of the bugs that the one repaired correctly and the other did not.
    """

    num: int
    num_dropped: int
    num_errors: int
    dropped: dict[str, int]
    not_judged: int
    deepest: int
    arms: dict[str, ArmFigures]
    differences: dict[tuple[str, str, str, int], Difference]
    only: dict[tuple[str, str], list[str]]
    by_pattern: list[Split]
    by_kind: list[Split]
    by_reach: list[Split]

    def as_json(self) -> dict[str, Any]:
        """JSON values; the keys of `differences` become "B1-B0 correct@10"."""
        told: dict[str, Any] = asdict(self)
        told["only"] = {f"{one} and not {other}": ids for (one, other), ids in self.only.items()}
        told["differences"] = {
            f"{second}-{first} {which}@{depth}": asdict(found)
            for (first, second, which, depth), found in self.differences.items()
        }
        return told


def within(rank: int, depth: int) -> bool:
    """Whether a first rank (0: none) lies within the depth."""
    return 0 < rank <= depth


def figures(rows: Iterable[Row], *, arms: Sequence[str], deepest: int, seed: int = 0) -> Figures:
    """Figures of the results; `deepest` is the number of candidates that each arm was allowed."""
    rows = list(rows)
    done = [row for row in rows if row["status"] == "done"]
    dropped = Counter(row["reason"].partition(":")[0][:60] for row in rows if row["status"] == "dropped")
    depths = [depth for depth in DEPTHS if depth < deepest] + [deepest]
    kinds = ("operator", "unlike", "real")
    pairs = compared(arms)
    differences = {}
    for first, second in pairs:
        for which in ("plausible", "correct"):
            for depth in depths:
                differences[first, second, which, depth] = differ(done, first, second, which, depth, seed)
        for kind in kinds:
            part = [row for row in done if row["injector"].partition(":")[0] == kind]
            if 0 < len(part) < len(done):
                found = differ(part, first, second, "correct", deepest, seed)
                differences[first, second, f"correct, {kind}", deepest] = found
    return Figures(
        num=len(done),
        num_dropped=sum(dropped.values()),
        num_errors=sum(row["status"] == "error" for row in rows),
        dropped=dict(dropped),
        not_judged=sum(row["not_judged"] for row in done),
        deepest=deepest,
        arms={arm: arm_figures(done, arm, depths, seed) for arm in arms},
        differences=differences if done else {},
        only={pair: only(done, *pair, deepest) for couple in pairs for pair in (couple, couple[::-1])},
        by_pattern=splits(done, arms, deepest, "pattern", PATTERNS),
        by_kind=splits(done, arms, deepest, "injector", (*kinds, *injectors(done))),
        by_reach=splits(
            [{**row, "reach": REACH[bool(row["within_reach"])]} for row in done], arms, deepest, "reach", REACH
        ),
    )


def compared(arms: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of arms whose difference is told: each with the one before it, and with the first."""
    return list(dict.fromkeys([*pairwise(arms), *((arms[0], arm) for arm in arms[1:])]))


def differ(rows: Sequence[Row], first: str, second: str, which: str, depth: int, seed: int) -> Difference:
    """The second arm minus the first: shares that are plausible, or correct, within the depth."""
    one, other = ([within(row["arms"][arm][f"first_{which}"], depth) for row in rows] for arm in (first, second))
    return compare(one, other, seed=seed)


def only(rows: Iterable[Row], one: str, other: str, depth: int) -> list[str]:
    """Ids of what one arm repaired correctly within the depth and the other did not."""
    solved = {
        arm: {row["id"] for row in rows if within(row["arms"][arm]["first_correct"], depth)} for arm in (one, other)
    }
    return sorted(solved[one] - solved[other])


def injectors(rows: Iterable[Row]) -> list[str]:
    """Full names of the injectors, for a finer split."""
    return sorted({row["injector"] for row in rows if ":" in row["injector"]})


def splits(rows: Sequence[Row], arms: Sequence[str], depth: int, column: str, names: Sequence[str]) -> list[Split]:
    """The parts that hold items."""
    found = [split(name, rows, arms, depth, column, name) for name in names]
    return [part for part in found if part.num]


def split(name: str, rows: Sequence[Row], arms: Sequence[str], depth: int, column: str, value: str) -> Split:
    """Rows whose column is the value or begins with it and a colon."""
    part = [row for row in rows if row[column] == value or row[column].startswith(value + ":")]
    correct = {
        arm: share(sum(within(row["arms"][arm]["first_correct"], depth) for row in part), len(part)) for arm in arms
    }
    return Split(name=name, num=len(part), correct=correct)


def arm_figures(rows: Sequence[Row], arm: str, depths: Sequence[int], seed: int) -> ArmFigures:
    """One arm's figures. Seconds to the first correct patch: looking at the tests, proposing, ranking, checking."""
    told = [row["arms"][arm] for row in rows]
    fixed = {
        which: {depth: share(sum(within(one[f"first_{which}"], depth) for one in told), len(told)) for depth in depths}
        for which in ("plausible", "correct")
    }
    plausible = [one for one in told if one["first_plausible"]]
    correct = [(row, one) for row, one in zip(rows, told, strict=True) if one["first_correct"]]
    seconds = [
        row["observe_seconds"] + row["propose_seconds"] + one["rank_seconds"] + one["seconds_to_correct"]
        for row, one in correct
    ]
    return ArmFigures(
        fixed=fixed,
        chosen=share(sum(one["choice"] == "correct" for one in told), len(told)),
        exact=share(sum(one["choice_exact"] for one in told), len(told)),
        precision=share(
            sum(one["choice"] == "correct" for one in told), sum(one["choice"] in ("correct", "wrong") for one in told)
        ),
        candidates=median([one["first_correct"] for _, one in correct], seed=seed),
        candidates_any=median([one["first_plausible"] for one in plausible], seed=seed),
        seconds=median(seconds, seed=seed),
        unchecked=sum(one["unchecked"] for one in told),
    )

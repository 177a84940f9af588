"""One bug under several arms: every arm's order of the same candidates, checked warm, judged cold, verdicts shared.

The arms take turns, so that a budget of seconds cuts them alike. Seconds of an arm are those that its candidates
took when they were checked, whoever had them checked; looking at the tests, proposing and ranking are added.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from riallm.agent.client import Client
from riallm.agent.local import LocalClient
from riallm.agent.ngram import NgramClient
from riallm.agent.repair import propose, rank
from riallm.agent.repair.apply import unified_diff
from riallm.agent.repair.localise import localise
from riallm.agent.repair.program import Program
from riallm.agent.repair.project import discover
from riallm.agent.repair.records import Candidate, Evidence
from riallm.agent.repair.run import failing_text
from riallm.agent.repair.validate import Isolation, Validator
from riallm.core.errors import ProjectError, UsageError
from riallm.eval.bug import Bug
from riallm.eval.tasks.repair_judge import Judge
from riallm.eval.tasks.repair_store import Verdicts


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """ranking: one of `rank.ARMS`. model: a language model ranks as well. proposes: and its own edits are tried.
    weights: of the ranking, where they are not those of `fix`."""

    ranking: str
    model: bool = False
    proposes: bool = False
    weights: rank.Weights | None = None


ARMS = {
    "B0": Kind(ranking="random"),
    "B1": Kind(ranking="prior"),
    "B2": Kind(ranking="model"),
    "B2F": Kind(ranking="model", weights=rank.CACHE_FITTED),
    "B3": Kind(ranking="model", model=True),
    "B4": Kind(ranking="model", model=True, proposes=True),
}
"""No order; localisation and prior; the same and the n-gram; the same with weights that are
fitted as those of the model's arms are; the n-gram and a language model; the same and its edits."""

DEPTHS = (1, 10, 50, 200, 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """candidates: of each arm's order, at most. seconds_per_bug: for checks and judgements, all arms together.
    look_on: seconds of checking after the first plausible patch, as `riallm fix` does. judged: cold judgements a bug.
    model: folder of the language model of B3 and B4; they need one.
    """

    arms: tuple[str, ...] = ("B0", "B1", "B2")
    model: Path | None = None
    candidates: int = 1000
    pool: int = 5000
    seconds_per_bug: float = 120.0
    look_on: float = 3.0
    judged: int = 30
    observe_seconds: float = 60.0
    seed: int = 0
    isolation: Isolation = field(default_factory=Isolation)

    def __post_init__(self) -> None:
        asking = [name for name in self.arms if ARMS[name].model]
        if asking and self.model is None:
            raise UsageError(f"{', '.join(asking)}: a language model is asked, and there is none; name it by --model")


@dataclass(slots=True, kw_only=True)
class Arm:
    """How far one arm has come. Ranks count from one; seconds are of checking."""

    name: str
    order: list[Candidate]
    rank_seconds: float
    checked: int = 0
    seconds: float = 0.0
    first_plausible: int = 0
    first_correct: int = 0
    seconds_to_plausible: float = 0.0
    seconds_to_correct: float = 0.0
    correct: Candidate | None = None
    plausible: list[Candidate] = field(default_factory=list)
    seen_on: list[Candidate] = field(default_factory=list)

    def wants(self, settings: Settings) -> bool:
        """Whether another candidate of this arm would tell something new."""
        if self.checked >= min(len(self.order), settings.candidates):
            return False
        looked = self.first_plausible and self.seconds - self.seconds_to_plausible >= settings.look_on
        return not (self.first_correct and looked)


def evaluate(bug: Bug, settings: Settings, verdicts: Verdicts, scratch: Path) -> dict[str, Any]:
    """Run all arms over one bug. The result's `status` is "done" or "dropped" (with `reason`).

    Raises SandboxError without a sandbox; anything else that a project does wrong drops the bug.
    """
    began = time.monotonic()
    head = {"id": bug.id, "set": bug.set, "pattern": bug.pattern, "injector": bug.injector, "digest": bug.digest}
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="bug-") as name:
        try:
            body = _evaluate(bug, settings, verdicts, Path(name))
        except ProjectError as error:
            body = {"status": "dropped", "reason": str(error)[:300]}
    return {**head, **body, "wall_seconds": round(time.monotonic() - began, 2)}


def _evaluate(bug: Bug, settings: Settings, verdicts: Verdicts, scratch: Path) -> dict[str, Any]:
    folder = scratch / "project"
    folder.mkdir()
    bug.write(folder, False)
    judge = Judge(bug, verdicts, scratch, settings.isolation)
    judge.write()
    judge.control()
    program = program_of(bug, folder)
    started = time.monotonic()
    with Validator(program, isolation=settings.isolation, seed=settings.seed) as validator:
        evidence = validator.observe(settings.observe_seconds)
        observed = time.monotonic() - started
        judge.expect(evidence)
        pool = proposals(program, evidence, settings)
        arms = [_arm(name, program, pool, settings) for name in settings.arms]
        run = _Run(bug=bug, validator=validator, judge=judge, verdicts=verdicts, settings=settings)
        run.turns(arms)
        told = {arm.name: run.tell(arm, program, pool) for arm in arms}
    return {
        "status": "done",
        "tier": str(validator.tier),
        "tests": len(evidence.runs),
        "red": len(evidence.failing),
        "flaky": len(evidence.flaky),
        "pool": len(pool.found),
        "within_reach": judge.original(pool.found) is not None,
        "within_reach_of_model": judge.original(pool.from_model) is not None,
        "observe_seconds": round(observed, 3),
        "propose_seconds": round(pool.seconds, 3),
        "fresh_checks": run.fresh,
        "counted_seconds": round(run.spent, 2),
        "judged": judge.asked,
        "not_judged": run.not_judged,
        "arms": told,
    }


def program_of(bug: Bug, folder: Path) -> Program:
    """The project in `folder` as `riallm fix` is given it: with the visible tests as its command."""
    command = "python -m pytest " + shlex.join(bug.visible_args)
    python = Path((bug.python and folder / bug.python) or sys.executable)
    return Program(discover(folder, python=python, test=command))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """found: what operators propose; from_model: what the model proposes, in no order both. opinions: what n-gram and
    model say of all of them, asked once for all arms. seconds: of proposing by operators; `cache_seconds`,
    `model_seconds` and `more_seconds` went into asking the n-gram, asking the model, and its own proposals."""

    clients: rank.Clients
    found: list[Candidate]
    from_model: list[Candidate]
    opinions: rank.Opinions
    seconds: float
    cache_seconds: float
    model_seconds: float
    more_seconds: float

    def spent(self, kind: Kind) -> float:
        """Seconds of asking that an arm would have needed by itself."""
        asked = self.cache_seconds * (kind.ranking == "model") + self.model_seconds * kind.model
        return asked + self.more_seconds * kind.proposes

    def of(self, kind: Kind) -> tuple[list[Candidate], rank.Clients, rank.Opinions]:
        """The candidates of an arm, who ranks them, and what was said."""
        clients = self.clients if kind.model else rank.Clients(cache=self.clients.cache)
        known = self.opinions if kind.model else rank.Opinions(gains=self.opinions.gains)
        if not kind.proposes:
            return self.found, clients, known
        return list({each.key: each for each in (*self.from_model, *self.found)}.values()), clients, known


@lru_cache(maxsize=1)
def local_client(folder: Path) -> Client:
    """The model of a folder, loaded once."""
    return LocalClient(folder)


def proposals(program: Program, evidence: Evidence, settings: Settings) -> Pool:
    """Everything that some arm may try."""
    began = time.monotonic()
    suspects = localise(program, evidence)
    cache = NgramClient(program.texts(dict.fromkeys(suspect.path for suspect in suspects)))
    model = local_client(settings.model) if settings.model and any(ARMS[arm].model for arm in settings.arms) else None
    tests = failing_text(program, evidence)
    found = propose.propose(program, suspects, max_candidates=settings.pool, test_text=tests, seed=settings.seed)
    proposed = time.monotonic()
    more = propose.from_model(program, suspects, model, test_text=tests) if model else []
    written = time.monotonic()
    every = list({each.key: each for each in (*more, *found)}.values())
    gains = rank.likelihood_gains(program, every, cache)
    counted = time.monotonic()
    edits = rank.likely_edits(program, every, model, gains) if model else {}
    return Pool(
        clients=rank.Clients(cache=cache, model=model),
        found=found,
        from_model=more,
        opinions=rank.Opinions(gains=gains, edits=edits),
        seconds=proposed - began,
        cache_seconds=counted - written,
        model_seconds=time.monotonic() - counted,
        more_seconds=written - proposed,
    )


def _arm(name: str, program: Program, pool: Pool, settings: Settings) -> Arm:
    began = time.monotonic()
    found, _, known = pool.of(ARMS[name])
    ordered = rank.order(
        program, found, arm=ARMS[name].ranking, known=known, weights=ARMS[name].weights, seed=settings.seed
    )
    return Arm(name=name, order=ordered, rank_seconds=pool.spent(ARMS[name]) + time.monotonic() - began)


@dataclass(kw_only=True)
class _Run:
    """The shared work of all arms on one bug. `spent` counts each check and judgement once, with the seconds that it
    took when it was made, so that a run from the cache is cut off where the first one was."""

    bug: Bug
    validator: Validator
    judge: Judge
    verdicts: Verdicts
    settings: Settings
    fresh: int = 0
    spent: float = 0.0
    not_judged: int = 0
    known: dict[str, tuple[bool, float]] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)

    def turns(self, arms: Sequence[Arm]) -> None:
        """One candidate of each arm in turn, until no arm wants more or the seconds are spent."""
        while self.spent < self.settings.seconds_per_bug:
            waiting = [arm for arm in arms if arm.wants(self.settings)]
            if not waiting:
                return
            for arm in waiting:
                self.step(arm)

    def step(self, arm: Arm) -> None:
        """Check the arm's next candidate and note what it means."""
        candidate = arm.order[arm.checked]
        passed, seconds = self.check(candidate)
        arm.checked += 1
        arm.seconds += seconds
        if not passed:
            return
        looking = not arm.first_plausible or arm.seconds - arm.seconds_to_plausible < self.settings.look_on
        correct = self.correct(candidate)
        if correct is None:
            self.not_judged += 1
        elif correct == "not plausible":
            return
        arm.plausible.append(candidate)
        if not arm.first_plausible:
            arm.first_plausible, arm.seconds_to_plausible = arm.checked, arm.seconds
        if looking:
            arm.seen_on.append(candidate)
        if correct == "correct" and not arm.first_correct:
            arm.correct = candidate
            arm.first_correct, arm.seconds_to_correct = arm.checked, arm.seconds

    def check(self, candidate: Candidate) -> tuple[bool, float]:
        """(passed, seconds that the check took when it was made)."""
        if candidate.key not in self.known:
            value = self.verdicts.get(self.bug.digest, "visible", candidate.key)
            if value is None:
                began = time.monotonic()
                verdict = self.validator.check(candidate)
                value = [verdict.passed, round(time.monotonic() - began, 4)]
                self.fresh += 1
                self.verdicts.put(self.bug.digest, "visible", candidate.key, value)
            self.known[candidate.key] = (bool(value[0]), float(value[1]))
            self.spent += float(value[1])
        return self.known[candidate.key]

    def correct(self, candidate: Candidate) -> str | None:
        """What the cold judge says; None when the bug has had its share of judgements."""
        if candidate.key not in self.said:
            if len(self.said) >= self.settings.judged:
                return None
            self.said[candidate.key], seconds = self.judge.ask(candidate)
            self.spent += seconds
        return self.said[candidate.key]

    def tell(self, arm: Arm, program: Program, pool: Pool) -> dict[str, Any]:
        """The arm's line of the result."""
        choice, exact, patch = "none", False, ""
        _, clients, _ = pool.of(ARMS[arm.name])
        kind = ARMS[arm.name]
        for candidate in rank.prefer(program, arm.seen_on, arm=kind.ranking, clients=clients, weights=kind.weights):
            said = self.correct(candidate)
            choice = said or "not judged"
            exact = self.judge.exact(candidate)
            patch = unified_diff(program, candidate.edit)
            break
        wanted = min(len(arm.order), self.settings.candidates)
        unchecked = wanted - arm.checked if arm.wants(self.settings) else 0
        return {
            "checked": arm.checked,
            "unchecked": unchecked,
            "first_plausible": arm.first_plausible,
            "first_correct": arm.first_correct,
            "plausible": len(arm.plausible),
            "seconds_to_plausible": round(arm.seconds_to_plausible, 4),
            "seconds_to_correct": round(arm.seconds_to_correct, 4),
            "rank_seconds": round(arm.rank_seconds, 4),
            "choice": choice,
            "choice_exact": exact,
            "choice_patch": patch,
            "correct_patch": unified_diff(program, arm.correct.edit) if arm.correct else "",
        }


def arms_of(text: str) -> tuple[str, ...]:
    """Arm names of a comma-separated list; raises ValueError that names the ones there are."""
    names = tuple(name.strip().upper() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in ARMS]
    if unknown or not names:
        raise ValueError(f"no arm {', '.join(unknown) or '(none given)'}; there are {', '.join(ARMS)}")
    return names


def ranks(rows: Sequence[dict[str, Any]], arm: str, which: str) -> Iterator[int]:
    """First rank that was plausible or correct, a row each; 0 where there was none."""
    for row in rows:
        yield int(row["arms"][arm][which])

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
from pathlib import Path
from typing import Any

from riallm.agent.client import Client
from riallm.agent.ngram import NgramClient
from riallm.agent.repair import propose, rank
from riallm.agent.repair.localise import localise
from riallm.agent.repair.program import Program
from riallm.agent.repair.project import discover
from riallm.agent.repair.records import Candidate, Evidence
from riallm.agent.repair.run import failing_text
from riallm.agent.repair.validate import Isolation, Validator
from riallm.core.errors import ProjectError
from riallm.eval.bug import Bug
from riallm.eval.tasks.repair_judge import Judge
from riallm.eval.tasks.repair_store import Verdicts

ARMS = {"B0": "random", "B1": "prior", "B2": "model"}
"""Arm -> ranking: no order; localisation and prior; the same and the n-gram model."""

DEPTHS = (1, 10, 50, 200, 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """candidates: of each arm's order, at most. seconds_per_bug: for checks and judgements, all arms together.
    look_on: seconds of checking after the first plausible patch, as `riallm fix` does. judged: cold judgements a bug.
    """

    arms: tuple[str, ...] = tuple(ARMS)
    candidates: int = 1000
    pool: int = 5000
    seconds_per_bug: float = 120.0
    look_on: float = 3.0
    judged: int = 30
    observe_seconds: float = 60.0
    seed: int = 0
    isolation: Isolation = field(default_factory=Isolation)


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
    judge.control()
    command = "python -m pytest " + shlex.join(bug.visible_args)
    python = Path((bug.python and folder / bug.python) or sys.executable)
    program = Program(discover(folder, python=python, test=command))
    started = time.monotonic()
    with Validator(program, isolation=settings.isolation, seed=settings.seed) as validator:
        evidence = validator.observe(settings.observe_seconds)
        observed = time.monotonic() - started
        judge.expect(evidence)
        client, found, proposed = _propose(program, evidence, settings)
        arms = [_arm(name, program, found, client, settings) for name in settings.arms]
        run = _Run(bug=bug, validator=validator, judge=judge, verdicts=verdicts, settings=settings)
        run.turns(arms)
        told = {arm.name: run.tell(arm, program, client) for arm in arms}
    return {
        "status": "done",
        "tier": str(validator.tier),
        "tests": len(evidence.runs),
        "red": len(evidence.failing),
        "flaky": len(evidence.flaky),
        "pool": len(found),
        "within_reach": judge.within_reach(found),
        "observe_seconds": round(observed, 3),
        "propose_seconds": round(proposed, 3),
        "fresh_checks": run.fresh,
        "counted_seconds": round(run.spent, 2),
        "judged": judge.asked,
        "not_judged": run.not_judged,
        "arms": told,
    }


def _propose(program: Program, evidence: Evidence, settings: Settings) -> tuple[Client, list[Candidate], float]:
    began = time.monotonic()
    suspects = localise(program, evidence)
    client = NgramClient(program.texts(dict.fromkeys(suspect.path for suspect in suspects)))
    found = propose.propose(
        program,
        suspects,
        max_candidates=settings.pool,
        client=client,
        test_text=failing_text(program, evidence),
        seed=settings.seed,
    )
    return client, found, time.monotonic() - began


def _arm(name: str, program: Program, found: Sequence[Candidate], client: Client, settings: Settings) -> Arm:
    began = time.monotonic()
    ordered = rank.order(program, found, arm=ARMS[name], client=client, seed=settings.seed)
    return Arm(name=name, order=ordered, rank_seconds=time.monotonic() - began)


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

    def tell(self, arm: Arm, program: Program, client: Client) -> dict[str, Any]:
        """The arm's line of the result."""
        choice, exact = "none", False
        for candidate in rank.prefer(program, arm.seen_on, arm=ARMS[arm.name], client=client):
            said = self.correct(candidate)
            choice = said or "not judged"
            exact = self.judge.exact(candidate)
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

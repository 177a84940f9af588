"""The repair as a whole: see, localise, propose, rank, try, look on, confirm. Says each step to an observer."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from riallm.agent.client import Client
from riallm.agent.ngram import NgramClient
from riallm.agent.repair import propose, rank
from riallm.agent.repair.apply import unified_diff
from riallm.agent.repair.command import CommandValidator
from riallm.agent.repair.localise import localise
from riallm.agent.repair.program import Program
from riallm.agent.repair.records import Candidate, Evidence, Project, Status, Suspect, TestRun, Verdict
from riallm.agent.repair.validate import Isolation, Validator
from riallm.sandbox.base import Tier
from riallm.sandbox.warm import Ran

OBSERVE_SHARE = 0.5  # of the budget, at most, for running the tests as they are
SEARCH_SHARE = 0.6  # of the budget is left over when a model is asked for edits of one more place
CONFIRM_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """budget: seconds from start to the last candidate; look_on: seconds after the first plausible patch."""

    budget: float = 120.0
    max_candidates: int = 5000
    look_on: float = 3.0
    arm: str = "model"
    seed: int = 0
    num_workers: int = 2
    isolation: Isolation = field(default_factory=Isolation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it. `patch` is empty when no candidate was confirmed."""

    candidate: Candidate | None
    patch: str
    num_tried: int
    num_plausible: int
    num_candidates: int
    seconds: float
    search_seconds: float
    model: str
    tier: Tier
    evidence: Evidence
    after: tuple[TestRun, ...]
    suspects: tuple[Suspect, ...]


class Observer:
    """Hears what happens, as it happens; this one says nothing. Called from the main thread only."""

    def ran(self, run: Ran) -> None:
        """A test was run with tracing."""

    def seen(self, evidence: Evidence, tier: Tier) -> None:
        """The tests have been observed."""

    def localised(self, suspects: Sequence[Suspect]) -> None:
        """The suspicious lines are known."""

    def proposed(self, candidates: Sequence[Candidate]) -> None:
        """The candidates stand in the order in which they will be tried."""

    def progress(self, num_tried: int, num_plausible: int, seconds: float, latest: Candidate | None) -> None:
        """Some more candidates were tried."""

    def confirming(self, candidate: Candidate) -> None:
        """A plausible patch is being run cold."""


def counts(runs: Sequence[TestRun]) -> dict[str, int]:
    """{status: number of tests}."""
    found = Counter(str(run.status) for run in runs)
    return {str(status): found.get(str(status), 0) for status in Status if found.get(str(status))}


def repair(
    project: Project, options: Options, *, client: Client | None = None, observer: Observer | None = None
) -> Outcome:
    """Look for one edit that turns the red tests green and no green one red.

    client: a model that ranks and fills beside the project's own n-gram model, or None. Raises ProjectError when there
    is nothing to repair and SandboxError when there is no sandbox; a search without success is an Outcome.
    """
    observer = observer or Observer()
    began = time.monotonic()
    program = Program(project)
    kind = CommandValidator if project.framework == "command" else Validator
    with kind(program, isolation=options.isolation, num_workers=options.num_workers, seed=options.seed) as validator:
        evidence = validator.observe(OBSERVE_SHARE * options.budget, observer.ran)
        observer.seen(evidence, validator.tier)
        suspects = localise(program, evidence)
        observer.localised(suspects)
        cache = NgramClient(program.texts(dict.fromkeys(suspect.path for suspect in suspects)))
        clients = rank.Clients(cache=cache, model=client)
        found = propose.propose(
            program,
            suspects,
            max_candidates=options.max_candidates,
            client=client,
            test_text=failing_text(program, evidence),
            until=began + (1 - SEARCH_SHARE) * options.budget,
            seed=options.seed,
        )
        ordered = rank.order(program, found, arm=options.arm, clients=clients, seed=options.seed)
        observer.proposed(ordered)
        searching = time.monotonic()
        search = Search(validator, ordered, began + options.budget, options.look_on)
        plausible = search.run(observer, began)
        search_seconds = time.monotonic() - searching
        winner: Candidate | None = None
        after: tuple[TestRun, ...] = ()
        for candidate in rank.prefer(program, plausible, arm=options.arm, clients=clients):
            observer.confirming(candidate)
            verdict, after = validator.confirm(candidate.edit, CONFIRM_SECONDS)
            if verdict.passed:
                winner = candidate
                break
        return Outcome(
            candidate=winner,
            patch=unified_diff(program, winner.edit) if winner else "",
            num_tried=search.num_tried,
            num_plausible=len(plausible),
            num_candidates=len(ordered),
            seconds=time.monotonic() - began,
            search_seconds=search_seconds,
            model=(client or cache).capabilities.name,
            tier=validator.tier,
            evidence=evidence,
            after=after if winner else (),
            suspects=tuple(suspects),
        )


def failing_text(program: Program, evidence: Evidence) -> str:
    """Text of the test files that hold a red test: patches that repeat their values are suspicious."""
    paths = {run.name.split("::")[0] for run in evidence.failing}
    frames = {frame.path for run in evidence.failing for frame in run.frames}
    tests = [path for path in program.project.tests if path in paths | frames]
    return "\n".join(source.text for source in program.readable(tests))


class Search:
    """Tries candidates in order on all workers until the time is over, or some seconds after the first pass."""

    def __init__(self, validator: Validator, ordered: Sequence[Candidate], deadline: float, look_on: float) -> None:
        self._validator, self._ordered = validator, ordered
        self._deadline, self._look_on = deadline, look_on
        self._lock = threading.Lock()
        self._next = 0
        self._failed: BaseException | None = None
        self.num_tried = 0
        self.latest: Candidate | None = None
        self.plausible: list[Candidate] = []

    def run(self, observer: Observer, began: float) -> list[Candidate]:
        """The candidates that passed. Ctrl-C comes through at once: the threads end with their workers."""
        threads = [
            threading.Thread(target=self._work, daemon=True, name=f"check-{number}")
            for number in range(self._validator.num_workers)
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            threads[0].join(0.05)
            if not threads[0].is_alive():
                next((thread for thread in threads if thread.is_alive()), threads[0]).join(0.05)
            observer.progress(self.num_tried, len(self.plausible), time.monotonic() - began, self.latest)
        if self._failed is not None:
            raise self._failed
        return self.plausible

    def _take(self) -> Candidate | None:
        with self._lock:
            if self._failed or self._next >= len(self._ordered) or time.monotonic() > self._deadline:
                return None
            self._next += 1
            return self._ordered[self._next - 1]

    def _note(self, candidate: Candidate, verdict: Verdict) -> None:
        with self._lock:
            self.num_tried += 1
            self.latest = candidate
            if verdict.passed:
                if not self.plausible:
                    self._deadline = min(self._deadline, time.monotonic() + self._look_on)
                self.plausible.append(candidate)

    def _work(self) -> None:
        try:
            while (candidate := self._take()) is not None:
                self._note(candidate, self._validator.check(candidate))
        except BaseException as error:  # raised again in the main thread
            with self._lock:
                self._failed = self._failed or error

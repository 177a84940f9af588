"""Running the project's tests: once to see, thousands of times warm, and once more cold before anything is believed.

Warm workers check a candidate in milliseconds: the failing tests first, then the tests that execute the function
that it changes. `confirm` then runs everything in a new process that reads the edited file from disk.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from riallm.agent.repair.program import Program
from riallm.agent.repair.project import import_paths
from riallm.agent.repair.records import Candidate, Evidence, Frame, Project, Status, TestRun, Verdict
from riallm.code.edit import Edit
from riallm.code.spectrum import line_range
from riallm.core.errors import ProjectError
from riallm.sandbox import open_sandbox
from riallm.sandbox.base import MEGABYTE, Limits, Policy, Sandbox, Tier
from riallm.sandbox.warm import Collected, Ran, Splice, Trial, WarmWorker, WorkerDied

EVENTS_FACTOR = 20  # lines that a candidate may execute, against the same test before
EVENTS_FLOOR = 20_000
EVENTS_BEYOND = 100_000  # for what a red test has not come to yet: it stopped where it failed, or never ended
SECONDS_FACTOR = 10.0
SECONDS_FLOOR = 5.0
SECONDS_PER_TEST = 20.0  # in the first look; a test that takes longer counts as hung
MEMORY_BYTES = 1024 * MEGABYTE
RERUN_SHARE = 0.2  # of the seconds for observing: when all tests take less, all are run twice


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """How the tests are shut in: the tier (None: the strongest there is) and what may go without."""

    tier: Tier | None = None
    unsafe: bool = False


class Validator:
    """Holds the sandbox and up to `num_workers` warm workers of one project. Context manager; thread-safe checks."""

    def __init__(
        self, program: Program, *, isolation: Isolation | None = None, num_workers: int = 1, seed: int = 0
    ) -> None:
        self.program, self.project, self._isolation = program, program.project, isolation or Isolation()
        self._seed = seed
        self.num_workers = max(1, num_workers)
        self._stack = contextlib.ExitStack()
        self._sandbox = self._stack.enter_context(self._open())
        self.tier = self._sandbox.tier
        self._idle: queue.LifoQueue[WarmWorker] = queue.LifoQueue()
        self._all: list[WarmWorker] = []
        self._lock = threading.Lock()
        self._closed = False
        self.collected: Collected | None = None
        self.evidence = Evidence(runs=())
        self._by_function: dict[tuple[str, int], tuple[str, ...]] = {}

    def __enter__(self) -> Validator:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End every worker and the sandbox; checks that are under way in other threads end with WorkerDied."""
        with self._lock:
            self._closed = True
            workers, self._all = self._all, []
        for worker in workers:
            worker.close()
        self._stack.close()

    def environment(self) -> dict[str, str]:
        """What the tests see beside the sandbox's own clean variables."""
        return {
            "PYTHONPATH": self.python_path(import_paths(self.project)),
            "PYTHONHASHSEED": str(self._seed % 4_294_967_296),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def python_path(self, folders: tuple[str, ...]) -> str:
        """Folders of the project as PYTHONPATH."""
        return os.pathsep.join(os.path.normpath(self.project.root / folder) for folder in folders)

    def _open(self) -> Sandbox:
        policy = Policy(
            workspace=self.project.root,
            readable=self.project.prefixes,
            env=self.environment(),
            limits=Limits(memory_bytes=MEMORY_BYTES),
        )
        return open_sandbox(policy, tier=self._isolation.tier, unsafe=self._isolation.unsafe)

    def start(self, seconds: float, sandbox: Sandbox | None = None) -> tuple[WarmWorker, Collected]:
        """A new worker and what it collected within the seconds; it ends with the validator at the latest."""
        worker = WarmWorker(
            sandbox or self._sandbox,
            python=self.project.python,
            framework=self.project.framework,
            args=self.project.test_args,
            paths=import_paths(self.project),
        )
        try:
            with self._lock:
                if self._closed:
                    raise WorkerDied("the validator is closed")
                self._all.append(worker)
            return worker, worker.open(seconds)
        except BaseException:
            self._drop(worker)
            raise

    def _drop(self, worker: WarmWorker) -> None:
        with self._lock:
            if worker in self._all:
                self._all.remove(worker)
        worker.close()

    # --- seeing ---------------------------------------------------------------------------------------------

    def observe(self, seconds: float, on_run: Callable[[Ran], None] | None = None) -> Evidence:
        """Collect and run the tests with line tracing, the red ones twice; within about `seconds`.

        Raises ProjectError when there is nothing to repair: no tests, all green, or only flaky ones red.
        """
        worker, self.collected = self.start(seconds)
        try:
            evidence = self._observe(worker, self.collected, seconds, on_run)
        except WorkerDied as error:
            self._drop(worker)
            raise ProjectError(f"the tests brought down the process that ran them: {error}") from None
        except BaseException:
            self._drop(worker)
            raise
        self._idle.put(worker)
        self.evidence = evidence
        return evidence

    def _observe(
        self, worker: WarmWorker, collected: Collected, seconds: float, on_run: Callable[[Ran], None] | None
    ) -> Evidence:
        broken = tuple((name, text) for name, text in collected.broken)
        if not collected.tests:
            raise ProjectError(nothing_collected(self.project, broken))
        watch = self.project.sources
        per_test = min(SECONDS_PER_TEST, max(1.0, seconds / 3))
        runs = worker.observe(collected.tests, watch=watch, seconds=seconds, seconds_per_test=per_test, on_run=on_run)
        failing = [run.test for run in runs if run.status not in (Status.PASSED, Status.SKIPPED)]
        hung = {run.test for run in runs if run.status == Status.HUNG}
        quick = not hung and sum(run.seconds for run in runs) < RERUN_SHARE * seconds
        again = collected.tests if quick else tuple(name for name in failing if name not in hung)
        second = {
            run.test: run.status for run in worker.observe(again, watch=(), seconds=seconds, seconds_per_test=per_test)
        }
        flaky = {run.test for run in runs if second.get(run.test, run.status) != run.status}
        alone = self._passing_alone(worker, [name for name in failing if name not in flaky | hung])
        evidence = Evidence(
            runs=tuple(test_run(run) for run in runs), flaky=tuple(sorted(flaky | alone)), broken=broken
        )
        if not evidence.failing:
            raise ProjectError(nothing_red(evidence, len(collected.tests)))
        return evidence

    def _passing_alone(self, worker: WarmWorker, failing: list[str]) -> set[str]:
        """Red tests that are green when run by themselves: they depend on the order, and no edit can be judged."""
        found = set()
        for name in failing[:20]:
            trial = Trial(tests=(name,), must_pass=1, seconds=SECONDS_PER_TEST)
            if worker.check(None, trial).passed:
                found.add(name)
        return found

    # --- checking -------------------------------------------------------------------------------------------

    def check(self, candidate: Candidate) -> Verdict:
        """Judge one candidate on a warm worker. A worker that dies costs the candidate its life, not ours."""
        worker = self._worker()
        try:
            checked = worker.check(splice(self.program, candidate.edit), self.trial(candidate.edit))
        except WorkerDied as error:
            self._drop(worker)
            return Verdict(passed=False, killed_by=str(error)[:200], status=Status.CRASHED)
        except BaseException:
            self._drop(worker)
            raise
        self._idle.put(worker)
        return Verdict(passed=checked.passed, killed_by=checked.test, status=Status(checked.status))

    def _worker(self) -> WarmWorker:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return self.start(SECONDS_PER_TEST * 3)[0]

    def trial(self, edit: Edit) -> Trial:
        """Failing tests first, the quickest at the front, then the passing ones that execute the edited function."""
        failing = sorted(self.evidence.failing, key=lambda run: (run.seconds, run.name))
        rest = self._covering(edit)
        names = tuple(run.name for run in failing) + rest
        known = {run.name: run for run in self.evidence.runs}
        runs = [known[name] for name in names]
        shares = [SECONDS_FLOOR + SECONDS_FACTOR * run.seconds for run in runs if run.status is not Status.HUNG]
        return Trial(
            tests=names,
            must_pass=len(failing),
            seconds=SECONDS_FLOOR + SECONDS_FACTOR * sum(run.seconds for run in runs if run.status is not Status.HUNG),
            watch=tuple({edit.path, *(path for run in failing for path in run.lines)}),
            num_events=tuple(events_allowed(run) for run in runs),
            test_seconds=tuple(shares) if len(shares) == len(runs) else (),
        )

    def _covering(self, edit: Edit) -> tuple[str, ...]:
        """Passing tests that run a line of the function around the edit, or of the file when it is in none."""
        source = self.program.source(edit.path)
        assert source is not None
        function = source.function_at(edit.start)
        first, last = (function.lineno, function.end_lineno or function.lineno) if function else (1, 1 << 20)
        key = (edit.path, first)
        if key not in self._by_function:
            passing = self.evidence.passing
            mask = line_range(first, last) if function else -1
            hit = [run for run in passing if run.lines.get(edit.path, 0) & mask]
            self._by_function[key] = tuple(run.name for run in sorted(hit, key=lambda run: (run.seconds, run.name)))
        return self._by_function[key]

    # --- believing ------------------------------------------------------------------------------------------

    def confirm(self, edit: Edit | None, seconds: float = 300.0) -> tuple[Verdict, tuple[TestRun, ...]]:
        """Run every test in a new sandbox with the edited file on disk. Passed: red ones green, none newly red."""
        with self._open() as sandbox:
            if edit is not None:
                sandbox.write_file(edit.path, self.program.edited(edit))
            try:
                worker, collected = self.start(seconds, sandbox)
            except (ProjectError, WorkerDied) as error:
                return Verdict(passed=False, killed_by=str(error)[:300], status=Status.CRASHED), ()
            try:
                runs = worker.observe(collected.tests, watch=(), seconds=seconds, seconds_per_test=SECONDS_PER_TEST * 2)
            except WorkerDied as error:
                return Verdict(passed=False, killed_by=str(error)[:300], status=Status.CRASHED), ()
            finally:
                self._drop(worker)
        after = {run.test: run.status for run in runs}
        must = {run.name for run in self.evidence.failing}
        should = {run.name for run in self.evidence.passing}
        for name in sorted(must | should):
            status = after.get(name, "missing")
            if status != Status.PASSED and not (name in should and status == Status.SKIPPED):
                state = Status(status) if status != "missing" else Status.FAILED
                return Verdict(passed=False, killed_by=name, status=state), tuple(map(test_run, runs))
        return Verdict(passed=True), tuple(map(test_run, runs))


def events_allowed(run: TestRun) -> int:
    """Lines of the watched files that a test may execute with a candidate, by what it executed before."""
    if run.status is Status.HUNG:
        return EVENTS_BEYOND
    floor = EVENTS_FLOOR if run.status in (Status.PASSED, Status.SKIPPED) else EVENTS_BEYOND
    return floor + EVENTS_FACTOR * run.num_events


def splice(program: Program, edit: Edit) -> Splice:
    """The edit in bytes of the file on disk."""
    source = program.source(edit.path)
    assert source is not None
    codec = "utf-8" if source.encoding == "utf-8-sig" else source.encoding
    start = len(source.encode(source.text[: edit.start]))
    end = start + len(edit.original.encode(codec))
    return Splice(path=edit.path, start=start, end=end, data=edit.text.encode(codec, "replace"))


def test_run(run: Ran) -> TestRun:
    """The worker's record as the repair's."""
    return TestRun(
        name=run.test,
        status=Status(run.status),
        seconds=run.seconds,
        message=run.message,
        frames=tuple(Frame(path=path, line=line, function=name) for path, line, name in run.frames),
        lines=dict(run.lines),
        num_events=run.num_events,
    )


def nothing_collected(project: Project, broken: tuple[tuple[str, str], ...]) -> str:
    """Why no test could be run, and what to do."""
    if broken:
        name, text = broken[0]
        return f"no test could be collected; {name} fails with:\n{text.strip()[-1500:]}"
    where = Path(*project.test_args[-1:]) if project.test_args else project.root
    return (
        f"no tests collected in {where}. Expected files such as test_*.py with functions named test_*; "
        "name the command by --test 'pytest path/to/tests'."
    )


def nothing_red(evidence: Evidence, num_tests: int) -> str:
    """All green, or red only by chance."""
    if evidence.flaky:
        names = ", ".join(evidence.flaky[:5])
        return (
            f"the only red tests are flaky: run twice, or alone, they end differently ({names}). "
            "Make them deterministic first; no edit can be judged by them."
        )
    seen = len(evidence.runs)
    if seen < num_tests:
        return (
            f"all {seen} tests that ran in time are green, {num_tests - seen} did not get their turn: "
            "give a larger --budget or fewer tests by --test."
        )
    if evidence.broken:
        name, text = evidence.broken[0]
        return (
            f"all {seen} collected tests are green, but {len(evidence.broken)} test file(s) could not be collected; "
            f"{name} fails with:\n{text.strip()[-1500:]}"
        )
    return f"all {seen} tests are green: nothing to repair"

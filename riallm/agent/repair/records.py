"""The typed records that a repair passes from stage to stage: project, evidence, suspects, candidates, verdicts."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from riallm.code.edit import Edit


class Status(StrEnum):
    """How one test ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    HUNG = "hung"  # over its line budget or its time
    CRASHED = "crashed"  # the process ended without a verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A folder to repair. `root` is absolute; `sources` and `tests` are relative, with forward slashes.

    python: the interpreter that runs the tests; `prefixes` are the folders it needs to see.
    test_args: what follows `python -m pytest` (or the start folder for unittest); `command` is set instead
    when the user's own `--test` is neither.
    """

    root: Path
    python: Path
    prefixes: tuple[Path, ...]
    framework: str  # "pytest" | "unittest" | "command"
    test_args: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One traceback entry inside the project."""

    path: str
    line: int
    function: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TestRun:
    """One test as observed. `lines`: path -> bit set of executed lines (bit n = line n)."""

    __test__ = False

    name: str
    status: Status
    seconds: float
    message: str = ""
    frames: tuple[Frame, ...] = ()
    lines: dict[str, int] = field(default_factory=dict)
    num_events: int = 0  # line events in the watched files, for the budget


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What running the tests told, before any edit."""

    runs: tuple[TestRun, ...]
    flaky: tuple[str, ...] = ()
    broken: tuple[tuple[str, str], ...] = ()  # test files that could not be collected, and why

    @property
    def failing(self) -> tuple[TestRun, ...]:
        good = (Status.PASSED, Status.SKIPPED)
        return tuple(run for run in self.runs if run.status not in good and run.name not in self.flaky)

    @property
    def passing(self) -> tuple[TestRun, ...]:
        return tuple(run for run in self.runs if run.status is Status.PASSED and run.name not in self.flaky)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A line that may hold the bug; `score` in (0, 1], why in words for the reader."""

    path: str
    line: int
    score: float
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One edit with everything that ranks it. `key` is equal for edits with equal changed statements."""

    edit: Edit
    key: str
    suspicion: float
    smells: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What validation said of one candidate. `passed`: every visible test that should pass does."""

    passed: bool
    killed_by: str = ""  # first test that was still red, or that turned red
    status: Status = Status.PASSED
    seconds: float = 0.0

"""Proof that an injected bug is one: a passing test turns red, twice the same way, without a hang, and back again.

Runs are cold and in the sandbox, under two hash seeds, so that a test that depends on the order of a set shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from riallm.code.source import Source
from riallm.core.errors import UsageError
from riallm.data.inject import Injection, apply_edits, reverse_edits
from riallm.eval.runner import Opener, Outcomes, run_tests

SECONDS_FACTOR = 4.0
SECONDS_FLOOR = 12.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The working program's tests: those that pass under both hash seeds, and the second run's details."""

    passing: frozenset[str]
    outcomes: Outcomes

    def seconds_of(self, names: Sequence[str] | frozenset[str]) -> float:
        """Seconds that the tests took together."""
        return sum(self.outcomes.seconds.get(name, 0.0) for name in names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Tests that the bug turns red, how they fail, and the tests that stay green."""

    red: tuple[str, ...]
    messages: tuple[str, ...]
    green: tuple[str, ...]


def baseline(folder: Path, args: Sequence[str], *, opener: Opener, seconds: float, calls: bool = True) -> Baseline:
    """Run the working program's tests under two hash seeds; raises UsageError unless both runs are green."""
    first = run_tests(folder, args, opener=opener, seconds=seconds, hash_seed=1)
    second = run_tests(folder, args, opener=opener, seconds=seconds * 3, hash_seed=2, calls=calls)
    for run in (first, second):
        if not run.green:
            red = ", ".join(sorted(run.failing)[:5]) or "; ".join(run.broken.values()) or run.tail[-300:]
            raise UsageError(f"{folder.name}: the tests of the working program are not green: {red}")
    return Baseline(passing=first.passing & second.passing, outcomes=second)


def prove(
    folder: Path,
    source: Source,
    injection: Injection,
    args: Sequence[str],
    base: Baseline,
    *,
    opener: Opener,
) -> Proof | str:
    """Put the bug into `folder`, run, and take it out again. A string says why it is no good."""
    target = folder / injection.path
    original = target.read_bytes()
    expected = source.encode(source.text)
    assert original == expected, f"{target} is not the text that the bug was made for"
    buggy = apply_edits(source.text, injection.edits)
    assert apply_edits(buggy, reverse_edits(injection.edits)) == source.text
    texts = [buggy]
    if len(injection.edits) > 1:
        texts += [apply_edits(source.text, [edit]) for edit in injection.edits]
    try:
        return _prove(target, source, texts, args, base, opener=opener, folder=folder)
    finally:
        target.write_bytes(original)


def _prove(
    target: Path,
    source: Source,
    texts: Sequence[str],
    args: Sequence[str],
    base: Baseline,
    *,
    opener: Opener,
    folder: Path,
) -> Proof | str:
    wanted: frozenset[str] | None = None
    runs: list[Outcomes] = []
    for hash_seed, text in enumerate((texts[0], *texts), start=1):
        target.write_bytes(source.encode(text))
        seconds = SECONDS_FLOOR + SECONDS_FACTOR * (base.seconds_of(wanted) if wanted else base.outcomes.wall)
        run = run_tests(folder, args, opener=opener, seconds=seconds, hash_seed=hash_seed)
        if not run.ended:
            return "hangs"
        if run.broken:
            return "cannot be collected"
        wanted = frozenset(run.status) & base.passing
        if not run.failing & base.passing:
            return "survives" if len(runs) < 2 else "one edit of the pair is harmless"
        runs.append(run)
    first, second = runs[0], runs[1]
    red = first.failing & base.passing
    if red != second.failing & base.passing:
        return "flaky"
    green = first.passing & base.passing
    if not green:
        return "breaks every test"
    return Proof(
        red=tuple(sorted(red)),
        messages=tuple(first.message.get(name, "") for name in sorted(red)[:5]),
        green=tuple(sorted(green)),
    )

"""Proof that an injected bug is one: a passing test turns red, twice the same way, without a hang, and back again.

Runs are cold and in the sandbox, under two hash seeds, so that a test that depends on the order of a set shows;
the second run is of the red tests, which must be red again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from riallm.code.source import Source
from riallm.core.errors import UsageError
from riallm.core.files import atomic_write
from riallm.data.inject import Injection, apply_edits, reverse_edits
from riallm.eval.runner import Opener, Outcomes, run_tests

SECONDS_FACTOR = 4.0
SECONDS_FLOOR = 12.0
NAMED = 80  # red tests that are run again by name; of more than that, the whole command is
SURVIVES = "survives"


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


def saved_baseline(path: Path, make: Callable[[], Baseline]) -> Baseline:
    """The baseline kept in `path`, made and kept when it is not there."""
    if not path.exists():
        base = make()
        places = {name: sorted(found) for name, found in base.outcomes.entered.items()}
        kept = {"passing": sorted(base.passing), "seconds": dict(base.outcomes.seconds), "entered": places}
        atomic_write(path, json.dumps({**kept, "wall": base.outcomes.wall}).encode())
    told = json.loads(path.read_text())
    entered = {name: frozenset((str(p), int(line)) for p, line in found) for name, found in told["entered"].items()}
    outcomes = Outcomes(ended=True, seconds=told["seconds"], entered=entered, wall=told["wall"])
    return Baseline(passing=frozenset(told["passing"]), outcomes=outcomes)


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
    wall = base.outcomes.wall if len(args) > NAMED or "::" not in args[0] else base.seconds_of(args)
    first = _run(target, source, texts[0], args, base, wall, opener=opener, folder=folder, hash_seed=1)
    if isinstance(first, str):
        return first
    red = first.failing & base.passing
    green = first.passing & base.passing
    if not green and len(base.passing) > len(red) and "::" not in args[0]:
        return "breaks every test"
    again: Sequence[str] = sorted(red) if len(red) <= NAMED else args
    for at, text in enumerate(texts):
        seconds = base.seconds_of(red if again is not args else base.passing)
        run = _run(target, source, text, again, base, seconds, opener=opener, folder=folder, hash_seed=2)
        if at and run == SURVIVES:
            return "one edit of the pair is harmless"
        if isinstance(run, str):
            return "flaky" if run == SURVIVES else run
        if not at and not red <= run.failing:
            return "flaky"
    return Proof(
        red=tuple(sorted(red)),
        messages=tuple(first.message.get(name, "") for name in sorted(red)[:5]),
        green=tuple(sorted(green)),
    )


def _run(
    target: Path,
    source: Source,
    text: str,
    args: Sequence[str],
    base: Baseline,
    seconds: float,
    *,
    opener: Opener,
    folder: Path,
    hash_seed: int,
) -> Outcomes | str:
    """One run of one text; a string says what disqualifies it."""
    target.write_bytes(source.encode(text))
    limit = SECONDS_FLOOR + SECONDS_FACTOR * seconds
    run = run_tests(folder, args, opener=opener, seconds=limit, hash_seed=hash_seed)
    if not run.ended:
        return "hangs"
    if run.broken:
        return "cannot be collected"
    return run if run.failing & base.passing else SURVIVES

"""Bugs that a test has seen, for the repairs of a corpus: put into functions that the package's own tests enter.

The tests run once, to see what they enter. Then a bug costs the few quickest tests that enter its function, on a warm
worker: milliseconds. One that turns a test red is kept, with what the test said; the others may be no bugs at all.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from riallm.agent.repair.program import Program
from riallm.agent.repair.project import discover
from riallm.agent.repair.records import Status, TestRun
from riallm.agent.repair.validate import SECONDS_FLOOR, Validator, events_allowed, splice, test_run
from riallm.code.edit import Edit
from riallm.code.source import Source
from riallm.code.spectrum import line_range
from riallm.core.errors import UsageError
from riallm.data import repair_corpus
from riallm.data.corpus import packages, shards
from riallm.data.corpus.build import cleaned
from riallm.data.inject_site import Library
from riallm.data.repair_rows import Repair, drawn
from riallm.sandbox.warm import Trial, WorkerDied

TESTED = ("boltons", "toolz", "parso")
"""Packages of the corpora whose tests need nothing but pytest."""

LOOK_SECONDS = 240.0
QUICK_SECONDS = 0.25
TESTS = 6
"""Tests that a bug may cost; each takes QUICK_SECONDS at most."""
TRIES = 12
"""Bugs that are tried for each one that is wanted, before the package is given up."""


def write(
    folder: Path,
    archives: Path,
    names: Sequence[str] = TESTED,
    *,
    num: int,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> int:
    """Add up to `num` verified repairs to each named package of the corpus in `folder`; how many were added. Packages
    that have some are left as they are. Raises UsageError for a package that the corpus does not hold."""
    total = 0
    for name in names:
        if any(repair.error for repair in repair_corpus.of_package(folder, name)):
            say(f"{name}: has verified repairs already")
            continue
        known = {document.text for row in shards.read(shards.shard(folder, name)) for document in row.documents}
        (package,) = packages.chosen((name,), packages.table())
        with packages.opened(package, archives) as release:
            found = list(verified(release, known, random.Random(f"{seed}:{name}"), num=num))
        repair_corpus.add(folder, name, found)
        total += len(found)
        say(f"{name}: {len(found)} repairs with what a red test said")
    return total


def verified(root: Path, known: Collection[str], draw: random.Random, *, num: int) -> Iterator[Repair]:
    """Up to `num` repairs in the files of a project whose text is `known`, that is, not kept out of the corpus.

    Raises ProjectError where the tests cannot be run, UsageError where none of them is green and quick.
    """
    program = Program(discover(root))
    sources = [source for source in program.readable(program.project.sources) if cleaned(source.text) in known]
    if not sources:
        raise UsageError(f"{root.name}: no file of it is in the corpus; was it built from another release?")
    library, sizes = Library.of(sources), [len(source.text) for source in sources]
    with Validator(program) as validator:
        worker, collected = validator.start(LOOK_SECONDS)
        watch = tuple(source.path for source in sources)
        seen = worker.observe(collected.tests, watch=watch, seconds=LOOK_SECONDS, seconds_per_test=2.0)
        runs = [test_run(run) for run in seen]
        quick = [run for run in runs if run.status is Status.PASSED and run.seconds <= QUICK_SECONDS]
        if not quick:
            raise UsageError(f"{root.name}: none of {len(runs)} tests is green within {QUICK_SECONDS:g} seconds")
        left = num
        for source in draw.choices(sources, sizes, k=TRIES * num):
            made = drawn(source, library, draw)
            tests = covering(quick, source, made[0]) if made else []
            if not made or not tests:
                continue
            edit, repair = made
            try:
                checked = worker.check(splice(program, edit), trial(tests, edit))
            except WorkerDied:
                worker, _ = validator.start(LOOK_SECONDS)
                continue
            if not checked.passed and checked.status == Status.FAILED and checked.message.strip():
                yield replace(repair, error=checked.message.strip().splitlines()[0])
                left -= 1
                if not left:
                    return


def covering(runs: Sequence[TestRun], source: Source, edit: Edit) -> list[TestRun]:
    """The quickest tests that run a line of the function around the edit."""
    function = source.function_at(edit.start)
    if function is None:
        return []
    mask = line_range(function.lineno + 1, function.end_lineno or function.lineno)
    hit = [run for run in runs if run.lines.get(edit.path, 0) & mask]
    return sorted(hit, key=lambda run: (run.seconds, run.name))[:TESTS]


def trial(tests: Sequence[TestRun], edit: Edit) -> Trial:
    """All of the tests, each within what it may execute."""
    return Trial(
        tests=tuple(run.name for run in tests),
        must_pass=len(tests),
        seconds=SECONDS_FLOOR * len(tests),
        watch=(edit.path,),
        num_events=tuple(events_allowed(run) for run in tests),
        test_seconds=(SECONDS_FLOOR,) * len(tests),
    )

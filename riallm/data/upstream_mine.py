"""Find real bugs: the tests of release n+1 run on release n, and single hunks of the change that turn them green.

A bug is a hunk of at most MAX_LINES changed lines in one source file of n such that, with it alone,
a test of n+1 that is red on n through wrong behaviour becomes green and no test of n+1 that is green on n becomes red.
"""

from __future__ import annotations

import platform
import re
import shutil
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from riallm.core.errors import UsageError
from riallm.core.files import sha256
from riallm.data import upstream_hunks as hunks
from riallm.data.releases import Sdist, fetch, licence, unpack
from riallm.data.upstream_bug import Bug, read_source
from riallm.data.upstream_commands import modules_of, settle
from riallm.data.upstream_env import Packages, install, make_venv, readable
from riallm.data.upstream_project import (
    changed_tests,
    overlay,
    requirements,
    source_files,
    test_files,
    test_modules,
)
from riallm.data.upstream_run import Outcome, Report, run_tests, wrong_behaviour

MAX_LINES = 40
MAX_HUNKS = 300
MAX_BUGS = 4  # of one pair; the smallest hunks are kept
MODULE_SECONDS = 6.0
RED_SECONDS = 15.0  # for the changed test modules, once
SUITE_SECONDS = 60.0  # for the whole suite, once
SCAN_SECONDS = 45.0
PAIR_SECONDS = 100.0  # after that no further hunk of a pair is verified
_OLD_STYLE = re.compile(r"^\s+def (setup|teardown)\(self\)|^(from|import) nose\b|yield_fixture", re.MULTILINE)


@dataclass(slots=True, kw_only=True)
class Pair:
    """What came of one pair of releases; `verdict` says why there is no bug, or "bugs"."""

    package: str
    before: str
    after: str
    verdict: str
    detail: str = ""  # the message behind the verdict, where there is one
    changed_modules: int = 0
    red: int = 0
    wrong: int = 0
    hunks: int = 0
    candidates: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    bugs: list[Bug] = field(default_factory=list)


class _Stop(Exception):
    """The pair is decided; the message is its verdict."""


@dataclass(slots=True, kw_only=True)
class _Bench:
    """Both releases on disk with the same tests and the same packages."""

    older: Path
    newer: Path
    packages: Packages
    tests: list[str]  # tests that are new or changed: whole modules, or node ids without parameters
    spdx: str
    digests: tuple[str, str]
    try_seconds: float = 2 * RED_SECONDS  # for the red tests with one hunk

    def run(
        self, project: Path, modules: Iterable[str], seconds: float, *, only: Collection[str] = (), trace: bool = False
    ) -> Report:
        shown = readable(self.packages.folder)
        return run_tests(project, list(modules), only=only, readable=shown, seconds=seconds, trace=trace)

    def run_nodes(self, project: Path, nodes: Collection[str], *, trace: bool = False) -> Report:
        """Run tests by node id; a test whose module cannot be collected is just absent from the report."""
        seconds = 3 * RED_SECONDS if trace else self.try_seconds
        return self.run(project, modules_of(nodes), seconds, only=nodes, trace=trace)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Find:
    """A hunk that alone turns `fixed` green."""

    path: PurePosixPath
    hunk: hunks.Hunk
    text: str
    fixed: frozenset[str]


def mine_pair(before: Sdist, after: Sdist, home: Path) -> Pair:
    """Look for bugs between two releases. Every reason to find none is a verdict; only a broken sandbox raises."""
    began = time.monotonic()
    pair = Pair(package=before.package, before=before.version, after=after.version, verdict="bugs")
    work = home / "work" / f"{before.package}-{after.version}"
    shutil.rmtree(work, ignore_errors=True)
    try:
        bench = _set_up(before, after, home, work)
        reds = _red_tests(bench, pair)
        finds = _choose(_scan(bench, pair, reds))
        if not finds:
            raise _Stop("no single hunk mends it")
        pair.bugs = _verify(bench, pair, before, after, reds, finds, began)
        if not pair.bugs:
            raise _Stop("hunks found, none verified")
    except _Stop as stop:
        pair.verdict = str(stop)
        pair.detail = str(stop.__cause__ or "")
    finally:
        shutil.rmtree(work, ignore_errors=True)
        pair.seconds = round(time.monotonic() - began, 1)
    return pair


def _set_up(before: Sdist, after: Sdist, home: Path, work: Path) -> _Bench:
    digests, folders = [], []
    for name, sdist in (("older", before), ("newer", after)):
        try:
            archive, digest = fetch(sdist, home / "sdists")
            folders.append(unpack(archive, work / name))
        except UsageError as error:
            raise _Stop("archive cannot be had") from error
        digests.append(digest)
    older, newer = folders
    spdx = licence(older)
    if spdx is None or licence(newer) is None:
        raise _Stop("licence not recognised as permissive")
    if not test_modules(newer):
        raise _Stop("no tests in the source release")
    tests = changed_tests(older, newer)
    if not tests:
        raise _Stop("no test changed")
    old_style = any(
        _OLD_STYLE.search((newer / path).read_text(encoding="utf-8", errors="replace"))
        for path in test_files(newer)
        if path.suffix == ".py"
    )
    wanted = [*requirements(newer), "pytest==7.4.4" if old_style else "pytest==8.3.5"]
    try:
        packages = install(wanted, without=before.package, home=home / "packages")
    except UsageError as error:
        raise _Stop("packages do not install") from error
    overlay(older, newer)
    for project in (older, newer):
        make_venv(project, packages.folder)
    return _Bench(older=older, newer=newer, packages=packages, tests=tests, spdx=spdx, digests=(digests[0], digests[1]))


def _red_tests(bench: _Bench, pair: Pair) -> dict[str, Outcome]:
    """Tests that are green on n+1 and red on n, twice each, through wrong behaviour."""
    pair.changed_modules = len(modules_of(bench.tests))
    whole = {test for test in bench.tests if "::" not in test}
    only = () if whole else bench.tests
    good = bench.run(bench.newer, modules_of(bench.tests), RED_SECONDS, only=only)
    if not good.ended:
        raise _Stop("tests crash or take over 15 s on the newer release")
    if not good.passed():
        raise _Stop("no test is green on the newer release")
    bad = bench.run(bench.older, modules_of(bench.tests), 2 * RED_SECONDS, only=only)
    red = good.passed() & bad.failed()
    pair.red = len(red)
    if not red:
        raise _Stop(
            "no red test" if not bad.uncollected else "no red test, modules not importable on the older release"
        )
    known = hunks.words([_text(bench.older / path) for path in source_files(bench.older)])
    wrong = {node for node in red if wrong_behaviour(bad.tests[node], project=bench.older, known=known)}
    if not wrong:
        raise _Stop("red through a missing name only")
    again = bench.run_nodes(bench.newer, wrong)
    wrong &= again.passed() & bench.run_nodes(bench.older, wrong).failed()
    bench.try_seconds = min(RED_SECONDS, 3 * again.seconds + 3)
    pair.wrong = len(wrong)
    if not wrong:
        raise _Stop("red tests are flaky")
    return {node: bad.tests[node] for node in sorted(wrong)}


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _candidates(bench: _Bench, *, together: bool) -> list[tuple[PurePosixPath, str, hunks.Hunk]]:
    """Every hunk of every source file that both releases have, smallest first."""
    found = []
    newer = set(source_files(bench.newer))
    for path in source_files(bench.older):
        if path not in newer:
            continue
        try:
            older_text, newer_text = read_source(bench.older / path), read_source(bench.newer / path)
        except UnicodeDecodeError:
            continue
        if older_text != newer_text:
            found += [(path, older_text, hunk) for hunk in hunks.cut(older_text, newer_text, together=together)]
    return sorted(found, key=lambda entry: (entry[2].size, entry[0], entry[2].start))


def _scan(bench: _Bench, pair: Pair, reds: dict[str, Outcome]) -> list[_Find]:
    """Try every hunk alone on the red tests; where none helps a test, groups of close regions too."""
    deadline = time.monotonic() + SCAN_SECONDS
    finds: list[_Find] = []
    entered = bench.run_nodes(bench.older, sorted(reds), trace=True).entered
    for together in (False, True):
        left = sorted(set(reds) - {node for find in finds for node in find.fixed})
        entries = _candidates(bench, together=together)
        pair.hunks += len(entries)
        if not left:
            break
        if len(entries) > MAX_HUNKS:
            _drop(pair, "too many hunks")
            continue
        for path, older_text, hunk in entries:
            text = hunks.apply(older_text, hunk)
            reason = "over 40 lines" if hunk.size > MAX_LINES else hunks.objection(older_text, text)
            if reason:
                _drop(pair, reason)
                continue
            if time.monotonic() > deadline:
                _drop(pair, "no time left to try")
                continue
            inside = hunks.entries(older_text, hunk)
            tests = left if inside is None or not entered else _entering(entered, str(path), inside, left)
            if not tests:
                _drop(pair, "never entered by a red test")
                continue
            pair.candidates += 1
            fixed = _with_text(bench, path, text, older_text, tests).passed() & set(left)
            if fixed:
                finds.append(_Find(path=path, hunk=hunk, text=text, fixed=frozenset(fixed)))
    return finds


def _drop(pair: Pair, reason: str) -> None:
    pair.dropped[reason] = pair.dropped.get(reason, 0) + 1


def _with_text(bench: _Bench, path: PurePosixPath, text: str, older_text: str, nodes: Sequence[str]) -> Report:
    """Run tests on the older release with one file changed for the time being."""
    file = bench.older / path
    file.write_bytes(text.encode())
    try:
        return bench.run_nodes(bench.older, nodes)
    finally:
        file.write_bytes(older_text.encode())


def _entering(
    entered: dict[str, frozenset[tuple[str, int]]], path: str, lines: frozenset[int], tests: Sequence[str]
) -> list[str]:
    """The tests that enter one of the functions that start at `lines` of `path`; all, when importing enters one."""
    places = {(path, line) for line in lines}
    if places & entered.get("", frozenset()):
        return list(tests)
    return [test for test in tests if places & entered.get(test, frozenset())]


def _choose(finds: Sequence[_Find]) -> list[_Find]:
    """One hunk for each group of tests: the one that mends most, the smaller at a tie, and none for a test twice."""
    chosen: list[_Find] = []
    mended: set[str] = set()
    for find in sorted(finds, key=lambda find: (-len(find.fixed), find.hunk.size, find.path, find.hunk.start)):
        if not find.fixed & mended:
            chosen.append(find)
            mended |= find.fixed
    return sorted(chosen, key=lambda find: (find.hunk.regions, find.hunk.size, find.path, find.hunk.start))


def _verify(
    bench: _Bench,
    pair: Pair,
    before: Sdist,
    after: Sdist,
    reds: dict[str, Outcome],
    finds: Sequence[_Find],
    began: float,
) -> list[Bug]:
    """Keep the finds that break nothing in the whole suite, with what an evaluation needs to know of them."""
    modules, first = _suite(bench, reds)
    plain = [first, bench.run(bench.older, modules, SUITE_SECONDS)]
    if not all(report.ended for report in plain):
        raise _Stop("the whole suite is too slow or crashes")
    bugs: list[Bug] = []
    for find in finds:
        if time.monotonic() > began + PAIR_SECONDS:
            _drop(pair, "no time left to verify")
            continue
        if len(bugs) == MAX_BUGS:
            _drop(pair, "enough bugs of this pair")
            continue
        bug = _verify_one(bench, pair, before, after, find, modules, plain)
        if bug is not None:
            bugs.append(bug)
    return bugs


def _suite(bench: _Bench, reds: dict[str, Outcome]) -> tuple[list[str], Report]:
    """The modules of the whole suite, and a run of them on the older release. Where the suite is too slow or crashes,
    those that end in MODULE_SECONDS, as many as fit in the time of a suite."""
    modules = [str(path) for path in test_modules(bench.older)]
    report = bench.run(bench.older, modules, SUITE_SECONDS / 2)
    if report.ended:
        return modules, report
    needed = modules_of(reds)
    kept, total = [], 0.0
    for module in sorted(modules, key=lambda name: (name not in needed, name)):
        report = bench.run(bench.older, [module], MODULE_SECONDS)
        if report.ended and total + report.seconds < SUITE_SECONDS / 2:
            kept.append(module)
            total += report.seconds
    return sorted(kept), bench.run(bench.older, sorted(kept), SUITE_SECONDS)


def _verify_one(
    bench: _Bench,
    pair: Pair,
    before: Sdist,
    after: Sdist,
    find: _Find,
    modules: Sequence[str],
    plain: Sequence[Report],
) -> Bug | None:
    """The record of a find that holds in the whole suite; None, with the reason counted, where it does not."""
    file = bench.older / find.path
    older_text = read_source(file)

    def run(chosen: Sequence[str], with_hunk: bool) -> Report:
        file.write_bytes((find.text if with_hunk else older_text).encode())
        return bench.run(bench.older, modules_of(chosen), SUITE_SECONDS, only=[name for name in chosen if "::" in name])

    try:
        mended = [run(modules, True) for _ in range(2)]
        passed = mended[0].passed() & mended[1].passed()
        if not all(report.ended for report in mended):
            _drop(pair, "suite crashes with the hunk")
            return None
        if (plain[0].passed() & plain[1].passed()) - (mended[0].passed() | mended[1].passed()):
            _drop(pair, "breaks another test")
            return None
        if not find.fixed & passed:
            _drop(pair, "fix is flaky")
            return None
        never = (mended[0].failed() | mended[1].failed()) - passed
        commands = settle(run, find.fixed & passed, never, modules)
    finally:
        file.write_bytes(older_text.encode())
    if commands is None:
        _drop(pair, "visible tests are too slow, or cannot be told from red ones")
        return None
    diff = hunks.unified(older_text, find.text, str(find.path))
    return Bug(
        id=f"{before.package}-{after.version}-{sha256(diff.encode())[:6]}",
        package=before.package,
        version_before=before.version,
        version_after=after.version,
        sdist_before=before.filename,
        sdist_after=after.filename,
        sha256_before=bench.digests[0],
        sha256_after=bench.digests[1],
        licence=bench.spdx,
        path=str(find.path),
        hunk=diff,
        removed=find.hunk.changed_removed,
        added=find.hunk.changed_added,
        regions=find.hunk.regions,
        fixed_tests=tuple(commands.fixed),
        errors=tuple(name for name, _ in Counter(item.error for item in commands.fixed.values()).most_common()),
        test_paths=tuple(modules_of(commands.visible)),
        visible=commands.visible,
        visible_deselect=commands.visible_deselect,
        visible_seconds=commands.visible_seconds,
        hidden=commands.hidden,
        hidden_deselect=commands.hidden_deselect,
        hidden_seconds=commands.hidden_seconds,
        requires=bench.packages.pins,
        python=platform.python_version(),
    )

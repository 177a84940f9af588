"""Which lines may hold the bug: the spectrum of the tests, the traceback, and the names that those lines use.

Ochiai over per-test line coverage (Abreu et al. 2007), raised for lines on the traceback of a failing test. What
runs at import is covered by no test, so definitions whose names a suspicious line uses, and the headers of
suspicious functions (defaults, decorators), get a share of that line's score.
"""

from __future__ import annotations

import ast
from collections import defaultdict

from riallm.agent.repair.program import Program
from riallm.agent.repair.records import Evidence, Suspect, TestRun
from riallm.code.source import Function, Item, Source
from riallm.code.spectrum import ochiai

MAX_SUSPECTS = 120
TRACEBACK_GAIN = 1.0  # of the innermost frame in the project; halves with each frame outwards
NAMED_GAIN = 0.25  # of a line in a function that the failing line of the test names
NAMED_SHARE = 0.3  # of such a line that was not executed: a generator that nobody started
HEADER_SHARE = 0.3
DEFINITION_SHARE = 0.4
MAX_DEFINITIONS = 3  # of one name; a commoner name tells nothing


def localise(program: Program, evidence: Evidence, *, limit: int = MAX_SUSPECTS) -> list[Suspect]:
    """Suspicious lines of the project's editable files, the most suspicious first; scores in (0, 1]."""
    allowed = set(program.project.sources)
    scores = ochiai((run.lines for run in evidence.failing), (run.lines for run in evidence.passing), allowed)
    reasons: dict[tuple[str, int], str] = {}
    for line in scores:
        reasons[line] = "run by failing tests"
    for line, gain in traceback_gains(evidence.failing, allowed).items():
        scores[line] = scores.get(line, 0.5) * (1.0 + gain)
        reasons[line] = "on the traceback"
    for line in named(program, evidence.failing):
        scores[line] = scores[line] * (1.0 + NAMED_GAIN) if line in scores else NAMED_SHARE
        reasons.setdefault(line, "in a function that the test calls")
    top = max(scores.values(), default=1.0)
    scores = {line: score / top for line, score in scores.items()}
    for extra, why in (
        (headers(program, scores), "header of a suspicious function"),
        (definitions(program, scores), ""),
    ):
        for line, score in extra.items():
            if score > scores.get(line, 0.0):
                scores[line] = score
                reasons[line] = why or "defines a name used there"
    ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    return [Suspect(path=path, line=line, score=score, reason=reasons[path, line]) for (path, line), score in ranked][
        :limit
    ]


def traceback_gains(failing: tuple[TestRun, ...], allowed: set[str]) -> dict[tuple[str, int], float]:
    """What the frames of failing tests add, averaged over the tests; 1 for a line innermost in all of them."""
    gains: dict[tuple[str, int], float] = defaultdict(float)
    for run in failing:
        frames = [frame for frame in reversed(run.frames) if frame.path in allowed]
        seen: set[tuple[str, int]] = set()
        for depth, frame in enumerate(frames):
            line = (frame.path, frame.line)
            if line not in seen:
                seen.add(line)
                gains[line] += TRACEBACK_GAIN * 0.5**depth / len(failing)
    return gains


def named(program: Program, failing: tuple[TestRun, ...]) -> set[tuple[str, int]]:
    """Lines of the project's functions whose names stand on the lines where tests failed."""
    names: set[str] = set()
    for run in failing:
        frames = [frame for frame in run.frames if frame.path in program.project.tests]
        source = program.source(frames[-1].path) if frames else None
        if source is not None:
            names |= used(source, frames[-1].line)
    found: set[tuple[str, int]] = set()
    for source in program.readable(program.project.sources) if names else ():
        for item in source.places:
            if isinstance(item, Function) and item.name in names and item.end_lineno is not None:
                found |= {
                    (source.path, line) for line in range(item.lineno, item.end_lineno + 1) if source.items_at(line)
                }
    return found


def headers(program: Program, scores: dict[tuple[str, int], float]) -> dict[tuple[str, int], float]:
    """Header lines of the functions that hold scored lines."""
    found: dict[tuple[str, int], float] = {}
    for (path, line), score in scores.items():
        source = program.source(path)
        function = None if source is None else function_around(source, line)
        if function is not None:
            key = (path, function.lineno)
            found[key] = max(found.get(key, 0.0), HEADER_SHARE * score)
    return found


def function_around(source: Source, line: int) -> Function | None:
    """The innermost function around a line."""
    items = source.items_at(line)
    return source.function_of(items[-1]) if items else None


def definitions(program: Program, scores: dict[tuple[str, int], float]) -> dict[tuple[str, int], float]:
    """Module- and class-level assignments of names that scored lines use, in any file that has scored lines."""
    paths = {path for path, _ in scores}
    where: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for source in program.readable(sorted(paths | imported(program, paths))):
        for item in source.places:
            if isinstance(item, ast.Assign | ast.AnnAssign | ast.AugAssign) and source.function_of(item) is None:
                for name in assigned(item):
                    where[name].append((source.path, item.lineno))
    found: dict[tuple[str, int], float] = {}
    for (path, line), score in scores.items():
        parsed = program.source(path)
        for name in used(parsed, line) if parsed is not None else ():
            places = where.get(name, ())
            if len(places) <= MAX_DEFINITIONS:
                for place in places:
                    found[place] = max(found.get(place, 0.0), DEFINITION_SHARE * score)
    return found


def imported(program: Program, paths: set[str]) -> set[str]:
    """Project files whose module name a `from ... import` of the given files ends in."""
    names = set()
    for source in program.readable(sorted(paths)):
        for item in source.places:
            if isinstance(item, ast.ImportFrom) and item.module:
                names.add(item.module.rsplit(".", 1)[-1])
    return {path for path in program.project.sources if path.rsplit("/", 1)[-1].removesuffix(".py") in names}


def assigned(item: Item) -> set[str]:
    """Names that an assignment binds."""
    targets = item.targets if isinstance(item, ast.Assign) else [getattr(item, "target", item)]
    return {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}


def used(source: Source, line: int) -> set[str]:
    """Names and attribute names that stand on a line."""
    found = set()
    for item in source.items_at(line):
        for node in ast.walk(item):
            if getattr(node, "lineno", 0) == line:
                if isinstance(node, ast.Name):
                    found.add(node.id)
                elif isinstance(node, ast.Attribute):
                    found.add(node.attr)
    return found

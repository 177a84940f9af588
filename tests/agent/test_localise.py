"""Where to look: spectrum, traceback, called functions, definitions that no test executes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from riallm.agent.repair.localise import localise
from riallm.agent.repair.program import Program
from riallm.agent.repair.project import discover
from riallm.agent.repair.records import Evidence, Frame, Status, TestRun

CODE = """\
LIMIT = 3


def inner(value):
    return value + LIMIT


def outer(value, factor=2):
    if value:
        return inner(value) * factor
    return 0


def lazily(values):
    for value in values:
        yield value
"""
TEST = "from code_ import outer, lazily\n\n\ndef test_lazily():\n    assert lazily([1]) == [1]\n"


def mask(*lines: int) -> dict[str, int]:
    return {"code_.py": sum(1 << line for line in lines)}


def run(name: str, status: Status, *lines: int, frames: tuple[Frame, ...] = ()) -> TestRun:
    return TestRun(name=name, status=status, seconds=0.0, lines=mask(*lines), frames=frames)


def look(root: Path, *runs: TestRun) -> dict[int, float]:
    program = Program(discover(root))
    return {suspect.line: suspect.score for suspect in localise(program, Evidence(runs=runs))}


def test_the_spectrum_and_the_traceback(project: Callable[..., Path]) -> None:
    root = project({"code_.py": CODE, "test_code.py": TEST})
    frame = Frame(path="code_.py", line=5, function="inner")
    scores = look(
        root,
        run("a", Status.FAILED, 9, 10, 5, frames=(frame,)),
        run("b", Status.PASSED, 9, 11),
        run("c", Status.PASSED, 9),
    )
    assert scores[5] == 1.0  # only the failing test, and on the traceback
    assert scores[5] > scores[10] > scores[9]
    assert 11 not in scores  # only passing tests
    assert 0 < scores[1] < scores[5]  # LIMIT, used on line 5, runs at import
    assert 0 < scores[8] < scores[10]  # the header with the default of `factor`


def test_a_generator_that_nobody_started(project: Callable[..., Path]) -> None:
    root = project({"code_.py": CODE, "test_code.py": TEST})
    frame = Frame(path="test_code.py", line=5, function="test_lazily")
    scores = look(root, run("a", Status.FAILED, frames=(frame,)))
    assert set(scores) == {14, 15, 16}

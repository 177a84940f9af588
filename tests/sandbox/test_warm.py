"""The warm worker: swapping code objects says what importing again says; leaves die, the workspace stays as it was."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from riallm.code.operators import propose
from riallm.code.source import Source
from riallm.code.vocabulary import Vocabulary
from riallm.core.errors import ProjectError
from riallm.sandbox import open_sandbox
from riallm.sandbox.base import Policy, Sandbox
from riallm.sandbox.inside.processes import Tree
from riallm.sandbox.warm import PARTS, Splice, Trial, WarmWorker, WorkerDied, bundle

CODE = '''\
"""Shapes."""
import functools

SCALE = 2
TABLE = {n: n * n for n in range(4)}


def register(function):
    @functools.wraps(function)
    def inner(*args):
        return function(*args) * SCALE
    return inner


@register
def area(width, height=3):
    return width * height


class Box:
    sides = 4

    def __init__(self, size):
        self.size = size

    @property
    def volume(self):
        return self.size ** 3

    def each(self):
        for side in range(self.sides):
            yield side + self.size


def lookup(key):
    pick = lambda k: TABLE[k] if k in TABLE else -1
    return pick(key)


def made():
    return [n + 1 for n in range(3)]


AT_IMPORT = made()
'''
TESTS = """\
import subprocess, sys
import shapes


def test_area():
    assert shapes.area(2) == 12


def test_volume():
    assert shapes.Box(2).volume == 8


def test_each():
    assert list(shapes.Box(1).each()) == [1, 2, 3, 4]


def test_lookup():
    assert (shapes.lookup(3), shapes.lookup(9)) == (9, -1)


def test_at_import():
    assert shapes.AT_IMPORT == [1, 2, 3]


def test_in_another_process():
    out = subprocess.check_output([sys.executable, "-c", "import shapes; print(shapes.lookup(2))"])
    assert out.strip() == b"4"
"""
NAMES = tuple(f"test_shapes.py::{node.name}" for node in ast.parse(TESTS).body if isinstance(node, ast.FunctionDef))
WITHOUT_PROCESS = NAMES[:-1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shapes")
    (root / "shapes.py").write_text(CODE)
    (root / "test_shapes.py").write_text(TESTS)
    return root


@pytest.fixture(scope="module")
def sandbox(folder: Path) -> Iterator[Sandbox]:
    readable = (Path(sys.prefix), Path(sys.base_prefix).resolve())
    with open_sandbox(Policy(workspace=folder, readable=readable, env={"PYTHONPATH": str(folder)})) as made:
        yield made


@pytest.fixture(scope="module")
def worker(sandbox: Sandbox) -> Iterator[WarmWorker]:
    with WarmWorker(sandbox, python=Path(sys.executable), paths=["."]) as made:
        assert set(made.open(60).tests) == set(NAMES)
        yield made


def splice(old: str, new: str) -> Splice:
    start = CODE.index(old)
    return Splice(path="shapes.py", start=start, end=start + len(old), data=new.encode())


def trial(tests: tuple[str, ...] = WITHOUT_PROCESS, **changes: object) -> Trial:
    values: dict[str, object] = {
        "tests": tests,
        "must_pass": 0,
        "seconds": 20.0,
        "watch": ("shapes.py",),
        "num_events": (5000,) * len(tests),
    }
    return Trial(**{**values, **changes})  # type: ignore[arg-type]


def test_the_bundle_is_one_program_of_the_standard_library() -> None:
    names = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(bundle()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert names - {"pytest"} <= sys.stdlib_module_names
    assert len(PARTS) == len(list((Path(__file__).parents[2] / "riallm/sandbox/inside").glob("*.py"))) - 1


@pytest.mark.parametrize(
    ("old", "new", "passed", "reimported"),
    [
        ("self.size ** 3", "self.size ** 3", True, False),
        ("self.size ** 3", "self.size ** 2", False, False),
        ("side + self.size", "side + 2", False, False),
        ("k in TABLE else -1", "k not in TABLE else -1", False, False),
        ("function(*args) * SCALE", "function(*args) * SCALE + 1", False, False),  # a closure made at import
        ("return width * height", "return width * height * 2", False, False),  # behind a decorator
        ("sides = 4", "sides = 3", False, True),
        ("height=3", "height=4", False, True),
        ("SCALE = 2", "SCALE = 1", False, True),
        ("n + 1 for n", "n + 2 for n", False, True),  # ran while the module was imported
        ("n * n for n", "n + n for n", False, True),
        ("import functools\n", "import functools\nimport os\n", True, True),
        ("return pick(key)", "return pick(key", False, False),  # does not parse
    ],
)
def test_which_edits_are_swapped(worker: WarmWorker, old: str, new: str, passed: bool, reimported: bool) -> None:
    checked = worker.check(splice(old, new), trial())
    assert (checked.passed, checked.reimported) == (passed, reimported), checked


def test_an_edited_file_is_as_old_as_no_compiled_one(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    for seconds in (1_700_000_000, 1_700_000_010):
        path.write_text("a = 1")
        os.utime(path, (seconds, seconds))
        Tree.write_edited(str(path), b"a = 2")
        assert path.stat().st_mtime == 1 and path.read_text() == "a = 2"


def test_swapping_says_what_importing_again_says(worker: WarmWorker) -> None:
    """The fast path against its reference, over what the operators offer."""
    source = Source.from_text("shapes.py", CODE)
    vocabulary = Vocabulary.build([source])
    edits = [edit for line in range(1, len(source.line_starts)) for edit in propose(source, line, vocabulary)[::29]]
    assert len(edits) > 40
    num_swapped = 0
    for edit in edits[:: len(edits) // 70]:
        made = Splice(path="shapes.py", start=edit.start, end=edit.end, data=edit.text.encode())
        fast, slow = (worker.check(made, trial(fresh=fresh)) for fresh in (False, True))
        num_swapped += not fast.reimported
        assert (fast.passed, fast.test or "-") == (slow.passed, slow.test or fast.test or "-"), edit
    assert num_swapped > 15


def test_the_edited_file_is_on_the_disk_for_other_processes(worker: WarmWorker) -> None:
    last = (NAMES[-1],)
    assert worker.check(None, trial(last)).passed
    assert not worker.check(splice("return pick(key)", "return pick(key) + 1"), trial(last)).passed
    assert worker.check(None, trial(last)).passed  # and put back


@pytest.mark.parametrize(
    ("new", "status"),
    [
        ("while True: pass", "hung"),
        ("import time; time.sleep(1000)", "hung"),
        ("import os; os._exit(0)", "crashed"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed"),
        ("raise SystemExit(0)", "failed"),
        ("raise KeyboardInterrupt", "crashed"),
    ],
)
def test_a_leaf_that_dies_is_no_pass(worker: WarmWorker, new: str, status: str) -> None:
    checked = worker.check(splice("return pick(key)", new), trial((NAMES[3],), seconds=3.0))
    assert not checked.passed
    assert checked.status in (status, "failed") if "Keyboard" in new else checked.status == status
    assert worker.check(None, trial()).passed  # the worker lives on


def test_the_budget_of_lines_is_what_ends_a_loop(worker: WarmWorker) -> None:
    endless = splice("return pick(key)", "while True:\n        key = key")
    assert worker.check(endless, trial((NAMES[3],), seconds=60.0)).message == "over its line budget"


def test_each_test_has_its_own_budget_of_lines(worker: WarmWorker) -> None:
    longer = splice("return pick(key)", "for _ in range(200):\n        key = key\n    return pick(key)")
    both = (NAMES[0], NAMES[3])
    assert worker.check(longer, trial(both, num_events=(30, 1000))).passed
    stopped = worker.check(longer, trial(both, num_events=(1000, 30)))
    assert (stopped.test, stopped.message) == (NAMES[3], "over its line budget")


def test_each_test_has_its_own_share_of_the_clock(worker: WarmWorker) -> None:
    asleep = splice("return pick(key)", "import time; time.sleep(1000)")
    checked = worker.check(asleep, trial((NAMES[0], NAMES[3]), seconds=10_000.0, test_seconds=(10_000.0, 0.5)))
    assert (checked.test, checked.status) == (NAMES[3], "hung")


def test_what_a_leaf_does_to_the_workspace_is_undone(worker: WarmWorker) -> None:
    vandal = "import os; [os.unlink(n) for n in os.listdir('.') if n.endswith('.py')]; open('junk', 'w').write('x')"
    worker.check(splice("return pick(key)", vandal), trial((NAMES[3],)))
    assert worker.check(None, trial(fresh=False)).passed
    assert worker.check(splice("SCALE = 2", "SCALE = 2 "), trial(fresh=True)).passed  # imports from the disk


def test_observing_gives_lines_frames_and_ends(worker: WarmWorker) -> None:
    runs = worker.observe(NAMES[:3], watch=["shapes.py"], seconds=30, seconds_per_test=10)
    assert [run.status for run in runs] == ["passed"] * 3
    volume = next(number for number, line in enumerate(CODE.splitlines(), 1) if "** 3" in line)
    assert runs[1].lines["shapes.py"] >> volume & 1
    assert not runs[0].lines["shapes.py"] >> volume & 1
    assert runs[0].num_events > 0


def test_an_interpreter_without_pytest_is_told(sandbox: Sandbox, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    policy = Policy(workspace=sandbox.policy.workspace, readable=(tmp_path / "bare", Path(sys.base_prefix).resolve()))
    with open_sandbox(policy) as bare, pytest.raises(ProjectError, match="cannot run pytest"):
        WarmWorker(bare, python=tmp_path / "bare/bin/python", framework="pytest")


def test_a_worker_that_is_gone_says_so(sandbox: Sandbox) -> None:
    with WarmWorker(sandbox, python=Path(sys.executable), paths=["."]) as gone:
        gone.open(60)
        gone.close()
        with pytest.raises((WorkerDied, OSError)):
            gone.check(None, trial())

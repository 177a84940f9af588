"""Run a project's tests apart from everything else, and judge whether a red one shows wrong behaviour."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from riallm.sandbox.base import MEGABYTE, Limits, Policy
from riallm.sandbox.open import open_sandbox

_PLUGIN = "riallm_upstream_report"
_REPORT = ".riallm-upstream-report.json"
_MISSING = ("ImportError", "ModuleNotFoundError", "SyntaxError", "IndentationError", "TabError", "FileNotFoundError")
_BUILTIN = re.compile(r"'(NoneType|str|bytes|int|float|bool|list|tuple|dict|set|generator)' object has no attribute")

# The project's own settings are kept, but for those that ask for plugins, turn warnings into errors, or add options.
PYTEST_OPTIONS = (
    "-q",
    "--rootdir=.",
    "-p",
    "no:cacheprovider",
    "-o",
    "addopts=",
    "-o",
    "filterwarnings=",
    "-o",
    "required_plugins=",
)
ENVIRONMENT = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0", "TZ": "UTC", "LC_ALL": "C.UTF-8"}
LIMITS = Limits(seconds=120.0, memory_bytes=2048 * MEGABYTE, disk_bytes=200 * MEGABYTE, processes=500)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one test."""

    outcome: str  # passed, failed or skipped
    seconds: float
    phase: str = ""  # setup, call or teardown, where it failed
    error: str = ""  # name of the exception's type
    message: str = ""
    file: str = ""  # file of the innermost frame, as the interpreter saw it


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One run of pytest: outcomes by node id; `tests` is empty when pytest itself did not come to its end."""

    tests: dict[str, Outcome]
    uncollected: tuple[str, ...]
    seconds: float
    ended: bool
    entered: dict[str, frozenset[tuple[str, int]]] = field(default_factory=dict)
    """When traced: (path, first line) of the project's functions that each test entered."""

    def passed(self) -> frozenset[str]:
        return frozenset(node for node, outcome in self.tests.items() if outcome.outcome == "passed")

    def failed(self) -> frozenset[str]:
        return frozenset(node for node, outcome in self.tests.items() if outcome.outcome == "failed")


def test_command(python: str, chosen: Sequence[str], *, deselect: Sequence[str] = ()) -> list[str]:
    """The pytest command for the modules or node ids `chosen`, leaving out the node ids in `deselect`."""
    return [python, "-m", "pytest", *PYTEST_OPTIONS, *(f"--deselect={node}" for node in deselect), *chosen]


def run_tests(
    project: Path,
    modules: Sequence[str],
    *,
    only: Collection[str] = (),
    readable: Sequence[Path],
    seconds: float,
    trace: bool = False,
) -> Report:
    """Run tests of a project whose .venv is made, without network, and read what became of each.

    `only` keeps those with these node ids (parameters may be left out). With `trace` the report also says which of the
    project's functions each test entered.
    """
    venv = project / ".venv"
    site = next(venv.glob("lib/*/site-packages"))
    plugin = Path(__file__).with_name("upstream_report.py")
    shutil.copyfile(plugin, site / f"{_PLUGIN}.py")
    report = project / _REPORT
    chosen = report.with_suffix(".only")
    chosen.unlink(missing_ok=True)
    if only:
        chosen.write_text(json.dumps(sorted(only)))
    command = test_command(str(venv / "bin" / "python"), modules)
    command[3:3] = ["-p", _PLUGIN, "--continue-on-collection-errors"]
    environment = {
        **ENVIRONMENT,
        "RIALLM_UPSTREAM_REPORT": str(report),
        **({"RIALLM_UPSTREAM_TRACE": "1"} if trace else {}),
    }
    policy = Policy(
        workspace=project, readable=tuple(readable), env=environment, limits=replace(LIMITS, seconds=seconds)
    )
    with open_sandbox(policy) as sandbox:
        ended = sandbox.exec(command, keep=True)
        try:
            told = sandbox.read_file(report.name)
        except FileNotFoundError:
            return Report(tests={}, uncollected=(), seconds=ended.seconds, ended=False)
    if ended.stopped is not None:
        return Report(tests={}, uncollected=(), seconds=ended.seconds, ended=False)
    read = json.loads(told)
    tests = {node: Outcome(**entry) for node, entry in read["tests"].items()}
    entered = {test: frozenset((name, line) for name, line in seen) for test, seen in read["entered"].items()}
    return Report(
        tests=tests, uncollected=tuple(read["uncollected"]), seconds=ended.seconds, ended=True, entered=entered
    )


def wrong_behaviour(outcome: Outcome, *, project: Path, known: frozenset[str]) -> bool:
    """Whether a failed test shows the program doing the wrong thing, rather than lacking something that is new.

    `known` are all the words in the older sources: an attribute that none of them names is a new one.
    """
    if outcome.outcome != "failed" or outcome.phase != "call" or outcome.error in _MISSING:
        return False
    inside = Path(outcome.file).is_relative_to(project) and not re.search(
        r"(^|/)(tests?|testing)/|(^|/)test_[^/]*$|_tests?\.py$", str(Path(outcome.file).relative_to(project))
    )
    if outcome.error in ("NameError", "UnboundLocalError"):
        return inside
    if outcome.error == "AttributeError":
        if outcome.message.startswith(("module ", "partially initialized", "type object")):
            return False
        name = re.search(r"no attribute '(\w+)'", outcome.message)
        if "'NoneType' object" in outcome.message:
            return True
        if _BUILTIN.search(outcome.message):
            return inside
        return inside and name is not None and name[1] in known
    if outcome.error == "TypeError":
        if re.search(r"unexpected keyword|got an unexpected|invalid keyword|not callable", outcome.message):
            return False
        if re.search(r"positional argument|required argument|takes no |keyword-only", outcome.message):
            return inside
    return not (outcome.error == "Failed" and "DID NOT WARN" in outcome.message)

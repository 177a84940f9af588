"""A pytest plugin that writes what became of every test to a JSON file; it runs inside the project's interpreter.

Standard library only. It is copied beside the project's packages and loaded with `-p riallm_upstream_report`. The
variable RIALLM_UPSTREAM_REPORT names the file; one beside it with the suffix .only may list the node ids to run, also
without parameters or classes; with RIALLM_UPSTREAM_TRACE set, the functions that each test enters are reported too.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

_tests: dict[str, dict[str, Any]] = {}
_uncollected: list[str] = []
_entered: dict[str, set[tuple[str, int]]] = {"": set()}  # by test; "" while modules are imported
_current = [_entered[""]]


def _note_call(frame: Any, event: str, argument: Any) -> None:
    """Trace function that keeps which functions and modules were entered, and follows no line."""
    _current[0].add((frame.f_code.co_filename, frame.f_code.co_firstlineno))


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Trace from before anything of the project is imported."""
    if os.environ.get("RIALLM_UPSTREAM_TRACE"):
        sys.settrace(_note_call)


def _own(seen: set[tuple[str, int]]) -> list[tuple[str, int]]:
    """The entries of the project's own files, by project-relative path."""
    folder = os.getcwd() + os.sep
    return sorted((name[len(folder) :], line) for name, line in seen if name.startswith(folder))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """Keep only the tests that were asked for."""
    chosen = Path(os.environ["RIALLM_UPSTREAM_REPORT"]).with_suffix(".only")
    if chosen.exists():
        wanted = set(json.loads(chosen.read_text()))
        items[:] = [item for item in items if wanted & {item.nodeid, item.nodeid.split("[")[0], _short(item.nodeid)}]


def _short(node: str) -> str:
    """A node id as `module::function`: inherited tests carry the name of another class than the one they are in."""
    parts = node.split("[")[0].split("::")
    return f"{parts[0]}::{parts[-1]}"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: Any) -> None:
    """From here on, what is entered belongs to this test."""
    _current[0] = _entered.setdefault(item.nodeid, set())


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Generator[None, Any, None]:
    """Keep outcome, error type, message and the file of the innermost frame; a failed phase outweighs a passed one."""
    outcome = yield
    report = outcome.get_result()
    entry = _tests.setdefault(report.nodeid, {"outcome": "passed", "seconds": 0.0})
    entry["seconds"] += report.duration
    if report.outcome == "passed" and not hasattr(report, "wasxfail"):
        return
    if entry["outcome"] == "failed":
        return
    entry["outcome"] = "failed" if report.outcome == "failed" else "skipped"
    if report.outcome == "failed" and call.excinfo is not None:
        frames = call.excinfo.traceback
        entry["phase"] = report.when
        entry["error"] = call.excinfo.type.__name__
        entry["message"] = str(call.excinfo.value)[:300]
        entry["file"] = str(frames[-1].path) if len(frames) else ""


def pytest_collectreport(report: Any) -> None:
    """Keep which modules could not be collected."""
    if report.failed:
        _uncollected.append(report.nodeid)


def pytest_sessionfinish(session: Any, exitstatus: Any) -> None:
    """Write the file."""
    sys.settrace(None)
    result = {
        "entered": {test: _own(seen) for test, seen in _entered.items()},
        "tests": _tests,
        "uncollected": sorted(set(_uncollected)),
        "exit": int(exitstatus),
    }
    Path(os.environ["RIALLM_UPSTREAM_REPORT"]).write_text(json.dumps(result))

"""Runs pytest inside the sandbox and says how each test ended. Standard library and pytest only.

The text of this file is handed to the project's own interpreter with `-c`; it imports nothing of ours. Its one
argument is a JSON object: args (for pytest), calls (whether to record which functions each test enters) and
prefix (files below this folder count). The last line that it prints is MARK and a JSON object.
"""

import json
import os
import sys
import time

MARK = "@@outcomes "


class Watch:
    """The pytest plugin: one status a test, its seconds, the head of its failure, the functions that it entered."""

    def __init__(self, calls: bool, prefix: str) -> None:
        self.calls, self.prefix = calls, prefix
        self.status: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        self.message: dict[str, str] = {}
        self.broken: dict[str, str] = {}
        self.entered: dict[str, list[int]] = {}
        self.functions: dict[tuple[str, int], int] = {}
        self.seen: set = set()  # type: ignore[type-arg]

    def pytest_collectreport(self, report) -> None:  # type: ignore[no-untyped-def]
        if report.failed:
            self.broken[report.nodeid] = str(report.longrepr)[-400:]

    def pytest_runtest_logreport(self, report) -> None:  # type: ignore[no-untyped-def]
        name = report.nodeid
        self.seconds[name] = self.seconds.get(name, 0.0) + report.duration
        bad = report.failed and not hasattr(report, "wasxfail")
        if bad and self.status.get(name) != "failed":
            self.status[name] = "failed"
            crash = getattr(report.longrepr, "reprcrash", None)
            self.message[name] = str(crash.message if crash else report.longrepr)[:300]
        elif report.when == "call" or report.skipped:
            self.status.setdefault(name, "passed" if report.passed else "skipped")

    def pytest_runtest_logstart(self, nodeid, location) -> None:  # type: ignore[no-untyped-def]
        if self.calls:
            self.seen = set()
            sys.settrace(self.trace)

    def pytest_runtest_logfinish(self, nodeid, location) -> None:  # type: ignore[no-untyped-def]
        if self.calls:
            sys.settrace(None)
            places = {(os.path.abspath(code.co_filename), code.co_firstlineno) for code in self.seen}
            own = [place for place in places if place[0].startswith(self.prefix)]
            self.entered[nodeid] = sorted(self.functions.setdefault(place, len(self.functions)) for place in own)

    def trace(self, frame, event, argument) -> None:  # type: ignore[no-untyped-def]
        self.seen.add(frame.f_code)


def main() -> None:
    """Run, print the outcomes, and leave without waiting for what the tests left behind."""
    import pytest

    asked = json.loads(sys.argv[1])
    watch = Watch(asked["calls"], asked["prefix"])
    begun = time.perf_counter()
    code = pytest.main(["-q", "--tb=short", "-p", "no:cacheprovider", *asked["args"]], plugins=[watch])
    told = {
        "code": int(code),
        "wall": time.perf_counter() - begun,
        "status": watch.status,
        "seconds": {name: round(value, 4) for name, value in watch.seconds.items()},
        "message": watch.message,
        "broken": watch.broken,
        "functions": [[path[len(watch.prefix) :].lstrip("/"), line] for path, line in watch.functions],
        "entered": watch.entered,
    }
    sys.stdout.flush()
    sys.__stdout__.write("\n" + MARK + json.dumps(told) + "\n")  # type: ignore[union-attr]
    sys.__stdout__.flush()  # type: ignore[union-attr]
    os._exit(0)


if __name__ == "__main__":
    main()

"""The user's test framework, driven in process: collect once, run any test by name."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import unittest
from collections.abc import Callable, Iterator
from typing import Any

from riallm.sandbox.inside.tracing import MESSAGE_CHARS, Tracer, describe, frames_of

WITH_VALUE = frozenset(
    [
        "-k",
        "-m",
        "-c",
        "-p",
        "-o",
        "-W",
        "-r",
        "-n",
        "--maxfail",
        "--tb",
        "--durations",
        "--ignore",
        "--ignore-glob",
        "--deselect",
        "--rootdir",
        "--confcutdir",
        "--import-mode",
        "--override-ini",
        "--config-file",
        "--basetemp",
        "--log-level",
        "--junitxml",
        "--cov",
        "--timeout",
    ]
)


def options_of(args: list[str]) -> list[str]:
    """pytest's arguments without the files and node ids among them."""
    kept, takes_value = [], False
    for word in args:
        if takes_value or word.startswith("-"):
            kept.append(word)
        takes_value = not takes_value and word in WITH_VALUE
    return kept


class PytestRunner:
    """pytest in this process: `main` collects, then calls `serve(self)` in place of its own test loop."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.root: str = config["root"]
        self.args: list[str] = list(config["args"])
        self.tests: dict[str, Any] = {}
        self.broken: list[list[str]] = []
        self.started = False
        self.current: dict[str, Any] = {}
        self.tracer: Tracer | None = None

    @contextlib.contextmanager
    def traced(self) -> Iterator[None]:
        """Trace fixtures and test bodies alone: the framework between them would cost more than both."""
        if self.tracer is None:
            yield
            return
        self.tracer.install()
        try:
            yield
        finally:
            self.tracer.remove()

    @staticmethod
    def warm() -> None:
        import pytest  # noqa: F401

    def main(self, serve: Callable[[Any], None], files: list[str] | None = None) -> None:
        import pytest

        runner, current = self, self.current

        class Plugin:
            @pytest.hookimpl(tryfirst=True)
            def pytest_runtestloop(self, session: Any) -> bool:
                runner.tests = {item.nodeid: item for item in session.items}
                runner.started = True
                serve(runner)
                return True

            def pytest_collectreport(self, report: Any) -> None:
                if report.failed:
                    text = str(report.longrepr)
                    runner.broken.append([report.nodeid, text[-2 * MESSAGE_CHARS :]])

            @pytest.hookimpl(tryfirst=True)
            def pytest_runtest_makereport(self, item: Any, call: Any) -> Any:
                """A report without its rendered traceback, which costs more than most tests."""
                if call.excinfo is None and getattr(item, "_excinfo", None):
                    call.excinfo = item._excinfo.pop(0)  # where pytest keeps what a unittest.TestCase raised
                error = call.excinfo and call.excinfo.value
                if error is None:
                    return None
                skipped = isinstance(error, (pytest.skip.Exception, unittest.SkipTest))
                return pytest.TestReport(
                    item.nodeid,
                    item.location,
                    dict.fromkeys(item.keywords, 1),
                    "skipped" if skipped else "failed",
                    (str(item.path), 0, describe(error)) if skipped else describe(error),
                    call.when,
                    start=call.start,
                    stop=call.stop,
                    duration=call.duration,
                )

        class Listener:
            @pytest.hookimpl(hookwrapper=True, trylast=True)
            def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Any:
                with runner.traced():
                    yield

            @pytest.hookimpl(hookwrapper=True, trylast=True)
            def pytest_runtest_call(self, item: Any) -> Any:
                with runner.traced():
                    yield

            @pytest.hookimpl(hookwrapper=True)
            def pytest_runtest_makereport(self, item: Any, call: Any) -> Any:
                outcome = yield
                report = outcome.get_result()
                if report.outcome == "failed":
                    current["status"] = "failed"
                    if call.excinfo is not None and not current.get("message"):
                        current["message"] = describe(call.excinfo.value)
                        current["frames"] = frames_of(call.excinfo.value, runner.root)
                    elif not current.get("message"):
                        current["message"] = str(report.longrepr)[:MESSAGE_CHARS]
                elif report.outcome == "skipped" and current.get("status") != "failed":
                    current["status"] = "skipped"

        args = list(self.args) if files is None else options_of(self.args) + files
        args += ["--rootdir=" + self.root, "-q", "-s", "-p", "no:cacheprovider", "-p", "no:randomly"]
        for module, flags in (
            ("xdist", ["-n0"]),
            ("pytest_cov", ["--no-cov"]),
            ("pytest_benchmark", ["--benchmark-disable"]),
        ):
            if importlib.util.find_spec(module) is not None:
                args += flags
        pytest.main(args, plugins=[Plugin(), Listener()])

    def run(self, name: str, next_name: str = "") -> tuple[str, str, list[list[Any]]]:
        """Run one collected test; [status, message, frames]."""
        item, following = self.tests[name], self.tests.get(next_name)
        self.current.clear()
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        found = self.current
        return found.get("status", "passed"), found.get("message", ""), found.get("frames", [])

    def files(self, names: list[str]) -> list[str] | None:
        return sorted({os.path.join(self.root, name.split("::")[0]) for name in names})


class UnittestRunner:
    """unittest, for projects whose interpreter has no pytest; each test with its own class fixtures."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.root: str = config["root"]
        self.args: list[str] = list(config["args"])
        self.tests: dict[str, Any] = {}
        self.broken: list[list[str]] = []
        self.started = False
        self.tracer: Tracer | None = None

    @staticmethod
    def warm() -> None:
        import unittest.mock  # noqa: F401

    def main(self, serve: Callable[[Any], None], files: list[str] | None = None) -> None:
        runner = self

        class Collected:
            def run(self, test: Any, /) -> unittest.TestResult:
                runner.gather(test)
                runner.started = True
                serve(runner)
                return unittest.TestResult()

        unittest.main(module=None, argv=["unittest", *self.args], exit=False, testRunner=Collected())

    def gather(self, suite: unittest.TestSuite) -> None:
        for test in suite:
            if isinstance(test, unittest.TestSuite):
                self.gather(test)
            elif type(test).__name__ == "_FailedTest":
                error = getattr(test, "_exception", None)
                self.broken.append([test.id().rsplit(".", 1)[-1], str(error)[-2 * MESSAGE_CHARS :]])
            else:
                self.tests[test.id()] = test

    def run(self, name: str, next_name: str = "") -> tuple[str, str, list[list[Any]]]:
        errors: list[BaseException] = []

        class Result(unittest.TestResult):
            def addError(self, test: Any, err: Any) -> None:
                errors.append(err[1])

            addFailure = addError

            def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
                if err is not None:
                    errors.append(err[1])

            def addUnexpectedSuccess(self, test: Any) -> None:
                errors.append(AssertionError("unexpected success"))

        result = Result()
        if self.tracer is not None:
            self.tracer.install()
        try:
            unittest.TestSuite([self.tests[name]]).run(result)
        finally:
            Tracer.remove()
        if errors:
            return "failed", describe(errors[0]), frames_of(errors[0], self.root)
        return ("skipped" if result.skipped else "passed"), "", []

    def files(self, names: list[str]) -> list[str] | None:
        return None

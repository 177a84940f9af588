"""The host's side of the warm worker: starts it in a sandbox and speaks its protocol in typed records.

A worker is started once per project and then checks edits in milliseconds (`inside/__init__.py` tells how).
When it dies, because a test brought it down or its memory ran out, `WorkerDied` says so and a new one is started
by whoever holds it. Nothing that it answers is trusted beyond "this edit is worth a cold run".
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riallm.core.errors import ProjectError, RiallmError
from riallm.sandbox.base import Running, Sandbox
from riallm.sandbox.inside.channel import Channel

PARTS = ("channel", "tracing", "frameworks", "swap", "processes", "hot", "stem")
MARGIN_SECONDS = 30.0  # what a worker may be late, on a busy machine, before it counts as dead


class WorkerDied(RiallmError):
    """The warm worker ended or fell silent. Never the project's verdict."""


@functools.cache
def bundle() -> str:
    """The files of `inside/` as one program: their imports of each other are dropped, their order does the rest."""
    texts = ["from __future__ import annotations\n"]
    for part in PARTS:
        lines = (Path(__file__).parent / "inside" / f"{part}.py").read_text("utf-8").splitlines()
        texts += [line for line in lines if not line.startswith(("from riallm.", "from __future__"))]
    return "\n".join([*texts, "main()"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What the test framework found. `modules`: files of the project that collecting imported, relative."""

    framework: str
    version: tuple[int, ...]
    tests: tuple[str, ...]
    broken: tuple[tuple[str, str], ...]
    modules: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """One test run with line tracing. `lines`: path -> bit set; `frames`: (path, line, function), innermost last."""

    test: str
    status: str
    message: str
    seconds: float
    frames: tuple[tuple[str, int, str], ...]
    lines: Mapping[str, int]
    num_events: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Splice:
    """Bytes `start:end` of the file at `path` (relative) replaced by `data`."""

    path: str
    start: int
    end: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What to run against a splice: `tests` in order up to the first red; the first `must_pass` may not skip.

    num_events: lines of the `watch` files that each test may execute; test_seconds: each test's share of the clock.
    Both are empty (no such limit) or as long as `tests`; `seconds` is for all together.
    """

    tests: tuple[str, ...]
    must_pass: int
    seconds: float
    watch: tuple[str, ...] = ()
    num_events: tuple[int, ...] = ()
    test_seconds: tuple[float, ...] = ()
    fresh: bool = False  # import everything again, whatever the edit


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The worker's answer: passed, or the first test that was not green and how it ended."""

    passed: bool
    test: str
    status: str
    message: str
    reimported: bool


class WarmWorker:
    """One worker process tree in one sandbox. Context manager; close() ends all of it."""

    def __init__(
        self,
        sandbox: Sandbox,
        *,
        python: Path,
        framework: str = "auto",
        args: Sequence[str] = (),
        paths: Sequence[str] = (),
        seconds: float = 60.0,
    ) -> None:
        """Start it in the workspace. `framework`: auto, pytest or unittest; `paths`, relative to the workspace, go
        before the interpreter's own on sys.path.

        Raises ProjectError when the interpreter cannot be started or has no such framework.
        """
        self._running: Running = sandbox.start([str(python), "-u", "-c", bundle()])
        self._channel = Channel(self._running.stdout.fileno(), self._running.stdin.fileno())
        try:
            with contextlib.suppress(BrokenPipeError):  # it has ended; what it said is read below
                self._channel.send({"framework": framework, "args": list(args), "paths": list(paths)})
            hello = self._receive(seconds)
        except WorkerDied as error:
            self.close()
            words = sandbox.exec([str(python), "-c", ""]).stderr.strip() or str(error)
            raise ProjectError(
                f"the interpreter could not be used to run the tests in the tier '{sandbox.tier}': {words}. "
                "Name another by --python PATH."
            ) from None
        if "failed" in hello:
            self.close()
            raise ProjectError(
                f"{python} cannot run {framework}: {hello['failed']}. Install it there, or name another interpreter "
                "by --python PATH."
            )
        self.framework: str = hello["framework"]
        self.version = tuple(hello["version"])

    def _receive(self, seconds: float) -> dict[str, Any]:
        try:
            message = self._channel.receive(seconds + MARGIN_SECONDS)
        except TimeoutError:
            raise WorkerDied(f"no answer within {seconds:g} s") from None
        except OSError as error:
            raise WorkerDied(str(error)) from None
        if message is None:
            tail = self._running.stderr_tail().strip()
            raise WorkerDied(tail[-2000:] or "it ended without a word")
        return message

    def _ask(
        self, request: dict[str, Any], seconds: float, on_message: Callable[[dict[str, Any]], None] | None = None
    ) -> dict[str, Any]:
        try:
            self._channel.send(request)
        except OSError as error:
            raise WorkerDied(str(error)) from None
        while True:
            message = self._receive(seconds)
            if message.get("end"):
                if "died" in message:
                    raise WorkerDied(message["died"])
                return message
            if on_message is not None:
                on_message(message)

    def open(self, seconds: float) -> Collected:
        """Collect the tests. ProjectError carries the framework's own words when it cannot."""
        reply = self._ask({"op": "open", "seconds": seconds}, seconds)
        if "failed" in reply:
            raise ProjectError(f"the tests could not be collected:\n{reply['failed'].strip()}")
        return Collected(
            framework=self.framework,
            version=self.version,
            tests=tuple(reply["tests"]),
            broken=tuple((name, text) for name, text in reply["broken"]),
            modules=tuple(reply["inside"]),
        )

    def observe(
        self,
        tests: Sequence[str],
        *,
        watch: Sequence[str],
        seconds: float,
        seconds_per_test: float,
        on_run: Callable[[Ran], None] | None = None,
    ) -> list[Ran]:
        """Run `tests` with line tracing of the `watch` files; those not reached within `seconds` are left out."""
        runs: list[Ran] = []

        def hear(message: dict[str, Any]) -> None:
            run = message["run"]
            runs.append(
                Ran(
                    test=run["test"],
                    status=run["status"],
                    message=run["message"],
                    seconds=run["seconds"],
                    frames=tuple((path, line, name) for path, line, name in run["frames"]),
                    lines={path: int(bits, 16) for path, bits in run["lines"].items()},
                    num_events=run["events"],
                )
            )
            if on_run is not None:
                on_run(runs[-1])

        request = {"op": "observe", "tests": list(tests), "watch": list(watch)}
        self._ask({**request, "seconds": seconds, "seconds_per_test": seconds_per_test}, seconds, hear)
        return runs

    def check(self, splice: Splice | None, trial: Trial) -> Checked:
        """Run the trial with the splice made, or on the program as it is."""
        request: dict[str, Any] = {
            "op": "check",
            "path": splice.path if splice else "",
            "tests": list(trial.tests),
            "must_pass": trial.must_pass,
            "watch": list(trial.watch),
            "events": list(trial.num_events),
            "test_seconds": list(trial.test_seconds),
            "seconds": trial.seconds,
            "fresh": trial.fresh,
        }
        if splice is not None:
            request |= {"start": splice.start, "end": splice.end, "bytes": splice.data.decode("latin-1")}
        reply = self._ask(request, 2 * trial.seconds)
        return Checked(
            passed=reply["passed"],
            test=reply["test"],
            status=reply["status"],
            message=reply.get("message", ""),
            reimported=bool(reply.get("reimported")),
        )

    def close(self) -> None:
        self._running.close()

    def __enter__(self) -> WarmWorker:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

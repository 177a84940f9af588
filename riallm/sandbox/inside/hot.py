"""The hot process: has the project imported, and forks a leaf for every observation and check."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Callable
from typing import Any

from riallm.sandbox.inside.channel import Channel
from riallm.sandbox.inside.processes import Tree, become_reaper, leaf
from riallm.sandbox.inside.swap import File, Reimport, swap
from riallm.sandbox.inside.tracing import ImportCalls, Tracer, describe, real, stack_of

LINES_WITHOUT_END = 3_000_000  # executed by one test in the watched files: it counts as hung


class Hot:
    """Serves observations and checks from a process that has the project imported."""

    def __init__(
        self, config: dict[str, Any], channel: Channel, stem_channels: list[Channel], calls: ImportCalls
    ) -> None:
        self.config, self.channel, self.calls = config, channel, calls
        self.others = [channel, *stem_channels]
        self.root: str = config["root"]
        self.files: dict[str, File] = {}
        self.live: dict[str, list[types.FunctionType]] = {}

    def serve(self, runner: Any) -> None:
        sys.settrace(None)
        threading.settrace(None)
        sys.dont_write_bytecode = True
        self.runner = runner
        for thing in gc.get_objects():
            if isinstance(thing, types.FunctionType):
                path = real(thing.__code__.co_filename)
                if path.startswith(self.root + os.sep):
                    self.live.setdefault(path, []).append(thing)
        become_reaper()
        self.tree = Tree(self.root)
        gc.collect()
        gc.freeze()
        inside, outside = set(), []
        for name, module in list(sys.modules.items()):
            path = os.path.realpath(getattr(module, "__file__", None) or "/")
            if path.startswith(self.root + os.sep):
                inside.add(os.path.relpath(path, self.root))
            else:
                outside.append(name)
        self.channel.send(
            {
                "end": 1,
                "tests": list(runner.tests),
                "broken": runner.broken,
                "outside": outside,
                "inside": sorted(inside),
            }
        )
        while True:
            request = self.channel.receive()
            if request is None:
                os._exit(0)
            reply = self.observe(request) if request["op"] == "observe" else self.check(request)
            self.channel.send(dict(reply, end=1))

    def observe(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run the named tests in order with line tracing, in as few processes as crashes and hangs allow."""
        left, watched = list(request["tests"]), {os.path.join(self.root, path): path for path in request["watch"]}

        def work(channel: Channel) -> None:
            name, began = "", 0.0

            def give_up(signum: int, frame: types.FrameType | None) -> None:
                """Tell where a test without end was, and what it had executed; then this leaf is over."""
                Tracer.remove()
                run: dict[str, Any] = {"test": name, "status": "hung", "message": "did not end"}
                run["frames"] = stack_of(frame, self.root)
                run.update(seconds=time.perf_counter() - began, lines=tracer.bitsets(), events=tracer.events)
                channel.send({"run": run})
                os._exit(0)

            self.runner.tracer = tracer = Tracer(watched, LINES_WITHOUT_END, lambda: give_up(0, sys._getframe(2)))
            signal.signal(signal.SIGALRM, give_up)
            for index, name in enumerate(left):
                channel.send({"start": name})
                tracer.reset()
                began = time.perf_counter()
                signal.setitimer(signal.ITIMER_REAL, 0.9 * request["seconds_per_test"])
                following = left[index + 1] if index + 1 < len(left) else ""
                status, message, frames = self.runner.run(name, following)
                run = {"test": name, "status": status, "message": message, "frames": frames}
                run.update(seconds=time.perf_counter() - began, lines=tracer.bitsets(), events=tracer.events)
                channel.send({"run": run})
            signal.setitimer(signal.ITIMER_REAL, 0)
            channel.send({"end": 1})

        deadline = time.monotonic() + request["seconds"]
        while left and time.monotonic() < deadline:
            done: set[str] = set()
            running: list[str] = []

            def on_message(message: dict[str, Any], done: set[str] = done, running: list[str] = running) -> float:
                if "start" in message:
                    running[:] = [message["start"]]
                else:
                    done.add(message["run"]["test"])
                    running.clear()
                    self.channel.send(message)
                return float(min(request["seconds_per_test"], max(0.01, deadline - time.monotonic())))

            _, ending = leaf(work, self.others, on_message, request["seconds_per_test"])
            self.tree.restore()
            if ending != "ended" and running and (ending == "crashed" or time.monotonic() < deadline):
                done.add(running[0])
                run = {"test": running[0], "status": ending, "message": "", "frames": [], "lines": {}, "events": 0}
                self.channel.send({"run": dict(run, seconds=request["seconds_per_test"] if ending == "hung" else 0.0)})
            elif not done:
                break
            left = [name for name in left if name not in done]
        return {"left": left}

    def check(self, request: dict[str, Any]) -> dict[str, Any]:
        path = os.path.join(self.root, request["path"]) if request["path"] else ""
        pairs: list[Any] = []
        if path:
            try:
                if path not in self.files:
                    self.files[path] = File(path)
                pairs = self.files[path].pairs(request)  # here, so that what does not compile needs no leaf
            except Reimport:
                return {"reimport": 1}
            except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
                return {"passed": False, "test": "", "status": "failed", "message": describe(error)}

        def work(channel: Channel) -> None:
            if path:
                try:
                    swap(self.files[path], pairs, self.live, self.calls.keys)
                except Reimport:
                    channel.send({"end": 1, "reimport": 1})
                    return
                Tree.write_edited(path, self.files[path].edited(request))
            run_checks(self.runner, request, self.root, channel)

        last, ending = leaf(work, self.others, clock(request), request["seconds"])
        self.tree.restore()
        if path and self.tree.files is None:
            Tree.write(path, self.files[path].data)
        return verdict(last, ending)


def clock(request: dict[str, Any]) -> Callable[[dict[str, Any]], float | None]:
    """Seconds that a leaf has until its next message: the share of the test that it starts, of what is left for all."""
    deadline = time.monotonic() + request["seconds"]
    shares = dict(zip(request["tests"], request["test_seconds"]))

    def left(message: dict[str, Any]) -> float:
        rest = max(0.01, deadline - time.monotonic())
        return float(min(rest, shares.get(message.get("start", ""), rest)))

    return left


def verdict(last: dict[str, Any] | None, ending: str) -> dict[str, Any]:
    if ending == "ended" and last is not None:
        return {key: value for key, value in last.items() if key != "end"}
    return {"passed": False, "test": (last or {}).get("start", ""), "status": ending, "message": ""}


def run_checks(runner: Any, request: dict[str, Any], root: str, channel: Channel) -> None:
    """Run the request's tests up to the first that is not green, within the budget of executed lines."""
    name = ""

    def overrun() -> None:
        channel.send({"end": 1, "passed": False, "test": name, "status": "hung", "message": "over its line budget"})
        os._exit(1)

    watched = {os.path.join(root, path): path for path in request["watch"]}
    tracer = Tracer(watched, None, overrun) if request["events"] else None
    runner.tracer = tracer
    tests, began = request["tests"], time.perf_counter()
    for index, name in enumerate(tests):
        channel.send({"start": name})
        if name not in runner.tests:
            status, message = "failed", "the test is gone"
        else:
            if tracer is not None:
                tracer.events, tracer.limit = 0, request["events"][index]
            following = tests[index + 1] if index + 1 < len(tests) else ""
            status, message, _ = runner.run(name, following)
        if status not in ("passed", "skipped") or (status == "skipped" and index < request["must_pass"]):
            channel.send({"end": 1, "passed": False, "test": name, "status": status, "message": message})
            return
    channel.send({"end": 1, "passed": True, "test": "", "status": "passed", "seconds": time.perf_counter() - began})

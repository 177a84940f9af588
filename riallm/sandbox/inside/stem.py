"""The stem process: reads the host's requests, owns the hot process and the leaves that import again."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import tempfile
import threading
import traceback
from typing import Any

from riallm.sandbox.inside.channel import Channel
from riallm.sandbox.inside.frameworks import PytestRunner, UnittestRunner
from riallm.sandbox.inside.hot import Hot, clock, run_checks, verdict
from riallm.sandbox.inside.processes import ERRORS, Tree, become_reaper, end, fork, leaf, silence
from riallm.sandbox.inside.swap import File
from riallm.sandbox.inside.tracing import MESSAGE_CHARS, ImportCalls


class Stem:
    """Reads the host's requests; owns the hot process and the leaves that import again."""

    def __init__(self, config: dict[str, Any], channel: Channel) -> None:
        self.config, self.channel = config, channel
        self.root: str = config["root"]
        self.runner_type: Any = PytestRunner if config["framework"] == "pytest" else UnittestRunner
        self.hot: Channel | None = None
        self.hot_pid = 0

    def open(self, request: dict[str, Any]) -> dict[str, Any]:
        """Collect in a new hot process; {tests, broken} or {failed: text}."""
        down, up = os.pipe(), os.pipe()
        log = os.path.join(tempfile.gettempdir(), "collect.log")
        self.hot_pid = fork()
        if self.hot_pid == 0:
            try:
                os.close(down[1])
                os.close(up[0])
                mine = Channel(down[0], up[1])
                silence()
                descriptor = os.open(log, os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o600)
                os.dup2(descriptor, 1)
                os.dup2(descriptor, 2)
                calls = ImportCalls(self.root)
                runner = self.runner_type(self.config)
                sys.dont_write_bytecode = False
                hot = Hot(self.config, mine, [self.channel], calls)
                sys.settrace(calls)
                threading.settrace(calls)
                runner.main(hot.serve)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(1)
        os.close(down[0])
        os.close(up[1])
        self.hot = Channel(up[0], down[1])
        try:
            reply = self.hot.receive(request["seconds"])
        except TimeoutError:
            self.close_hot()
            return {"failed": f"collecting the tests took over {request['seconds']} s"}
        if reply is None:
            self.close_hot()
            with open(log, "rb") as file:
                file.seek(max(0, os.path.getsize(log) - 2 * MESSAGE_CHARS))
                return {"failed": file.read().decode("utf-8", "replace")}
        for name in reply.pop("outside"):
            if name not in sys.modules:
                with contextlib.suppress(Exception):
                    importlib.import_module(name)
        self.tree = Tree(self.root)
        return reply

    def close_hot(self) -> None:
        end(self.hot_pid)
        if self.hot is not None:
            self.hot.close()
        self.hot = None

    def relay(self, request: dict[str, Any]) -> dict[str, Any]:
        """Hand the request to the hot process and its messages to the host."""
        if self.hot is None:
            return {"died": "the warm process is not running"}
        try:
            self.hot.send(request)
            while True:
                message = self.hot.receive()
                if message is None:
                    break
                if message.get("end"):
                    return message
                self.channel.send(message)
        except OSError:
            pass  # told as `died` below
        self.close_hot()
        return {"died": "the warm process ended"}

    def check(self, request: dict[str, Any]) -> dict[str, Any]:
        reply = {"reimport": 1} if request.get("fresh") else self.relay(request)
        if not reply.get("reimport"):
            return reply
        path = os.path.join(self.root, request["path"])
        file = File(path)

        def work(channel: Channel) -> None:
            Tree.write_edited(path, file.edited(request))
            runner = self.runner_type(self.config)
            runner.main(lambda runner: run_checks(runner, request, self.root, channel), runner.files(request["tests"]))
            if not runner.started:
                channel.send(
                    {"end": 1, "passed": False, "test": "", "status": "failed", "message": "cannot be imported"}
                )

        last, ending = leaf(
            work, [self.channel, *([self.hot] if self.hot else [])], clock(request), request["seconds"], (self.hot_pid,)
        )
        self.tree.restore()
        Tree.write(path, file.data)
        return dict(verdict(last, ending), reimported=True)

    def serve(self) -> None:
        while True:
            request = self.channel.receive()
            if request is None or request["op"] == "quit":
                os._exit(0)
            handler = {"open": self.open, "observe": self.relay, "check": self.check}[request["op"]]
            self.channel.send(dict(handler(request), end=1))


def main() -> None:
    os.dup2(2, ERRORS, inheritable=False)
    channel = Channel(os.dup(0), os.dup(1))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    config = channel.receive() or {}
    sys.dont_write_bytecode = True
    sys.pycache_prefix = os.path.join(tempfile.gettempdir(), "pycache")  # the first collection fills it, leaves read it
    root = config["root"] = os.path.realpath(os.getcwd())  # which tiers without a mount namespace place elsewhere
    sys.path[:] = [os.path.normpath(os.path.join(root, path)) for path in config["paths"]] + list(
        filter(None, sys.path)
    )
    hello = {"end": 1, "version": list(sys.version_info[:3])}
    if config["framework"] == "auto":
        config["framework"] = "pytest" if importlib.util.find_spec("pytest") else "unittest"
    stem = Stem(config, channel)
    try:
        stem.runner_type.warm()
    except ImportError as error:
        channel.send(dict(hello, failed=str(error)))
        return
    channel.send(dict(hello, framework=config["framework"]))
    become_reaper()
    stem.serve()

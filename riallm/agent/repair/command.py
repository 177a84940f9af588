"""Repair by a test command that is neither pytest nor unittest: run cold, judged by its exit code alone.

Which lines it executes is learnt by a `sitecustomize` that every Python process of one traced run loads; the
frames come from the traceback that it prints. Slower by far than the warm worker, and the only way for `make test`.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import threading
from collections.abc import Callable

from riallm.agent.repair.program import Program
from riallm.agent.repair.project import import_paths
from riallm.agent.repair.records import Candidate, Evidence, Frame, Status, TestRun, Verdict
from riallm.agent.repair.validate import (
    SECONDS_FACTOR,
    SECONDS_FLOOR,
    Isolation,
    Validator,
)
from riallm.code.edit import Edit
from riallm.core.errors import ProjectError
from riallm.sandbox.base import Completed, Limits, Sandbox, Stop
from riallm.sandbox.inside import tracing
from riallm.sandbox.warm import Ran

FOLDER = ".riallm"  # in the sandbox's layer of the workspace, never in the real one
LINES = "lines.jsonl"
FRAME = re.compile(r'File "([^"\n]+)", line (\d+)(?:, in (\S+))?|^([\w./-]+\.py):(\d+): ', re.MULTILINE)
START = """
import atexit
import json

_folder = os.path.dirname(os.path.realpath(__file__))
_tracer = Tracer({{os.path.join(os.path.dirname(_folder), path): path for path in {sources!r}}})
_tracer.install()


@atexit.register
def _tell():
    Tracer.remove()
    with open(os.path.join(_folder, {lines!r}), "a") as file:
        file.write(json.dumps(_tracer.bitsets()) + "\\n")
"""


class CommandValidator(Validator):
    """The same face as Validator over a command. One test, named after the command."""

    def __init__(
        self, program: Program, *, isolation: Isolation | None = None, num_workers: int = 1, seed: int = 0
    ) -> None:
        super().__init__(program, isolation=isolation, num_workers=num_workers, seed=seed)
        self._own = threading.local()
        self._name = " ".join(self.project.command)

    def environment(self) -> dict[str, str]:
        inside = os.pathsep.join([str(self.project.python.parent), "/usr/local/bin", "/usr/bin", "/bin"])
        return super().environment() | {
            "PYTHONPATH": self.python_path((FOLDER, *import_paths(self.project))),
            "PATH": inside,
        }

    def observe(self, seconds: float, on_run: Callable[[Ran], None] | None = None) -> Evidence:
        """Run the command as it is, twice: once to see whether it is red for sure, once with tracing."""
        plain = self._run(self._sandbox, seconds)
        if plain.returncode == 127 and plain.stopped is None:
            raise ProjectError(
                f"--test: the command {self._name!r} was not found in the sandbox:\n{plain.stderr[-300:]}"
            )
        with self._open() as sandbox:
            text = inspect.getsource(tracing) + START.format(sources=self.project.sources, lines=LINES)
            sandbox.write_file(f"{FOLDER}/sitecustomize.py", text.encode())
            traced = self._run(sandbox, seconds, keep=True)
            masks = read_masks(sandbox)
        run = self._as_run(plain, masks)
        red, again = run.status is not Status.PASSED, traced.returncode != 0
        if not red:
            raise ProjectError(f"the command {self._name!r} ends with exit code 0: nothing to repair")
        self.evidence = Evidence(runs=(run,), flaky=() if again else (self._name,))
        if not again:
            raise ProjectError(f"the command {self._name!r} is flaky: red, then green. Make it deterministic first.")
        return self.evidence

    def _run(self, sandbox: Sandbox, seconds: float, *, keep: bool = False) -> Completed:
        limits = Limits(seconds=seconds, memory_bytes=sandbox.policy.limits.memory_bytes)
        return sandbox.exec(self.project.command, limits=limits, keep=keep)

    def _as_run(self, completed: Completed, masks: dict[str, int]) -> TestRun:
        status = Status.PASSED if completed.returncode == 0 and completed.stopped is None else Status.FAILED
        if completed.stopped is Stop.TIME:
            status = Status.HUNG
        output = completed.stdout + "\n" + completed.stderr
        lines = [line for line in output.splitlines() if line.strip()]
        return TestRun(
            name=self._name,
            status=status,
            seconds=completed.seconds,
            message=lines[-1] if lines else f"exit code {completed.returncode}",
            frames=frames(output, str(self.project.root)),
            lines=masks,
        )

    def check(self, candidate: Candidate) -> Verdict:
        return self.confirm(candidate.edit, SECONDS_FLOOR + SECONDS_FACTOR * self.evidence.runs[0].seconds)[0]

    def confirm(self, edit: Edit | None, seconds: float = 300.0) -> tuple[Verdict, tuple[TestRun, ...]]:
        """Run the command in a sandbox of its own that sees the edited file."""
        with self._open() as sandbox:
            if edit is not None:
                sandbox.write_file(edit.path, self.program.edited(edit))
            run = self._as_run(self._run(sandbox, seconds), {})
        passed = run.status is Status.PASSED
        return Verdict(passed=passed, killed_by="" if passed else self._name, status=run.status), (run,)


def read_masks(sandbox: Sandbox) -> dict[str, int]:
    """path -> bit set of executed lines, over all processes that said something."""
    masks: dict[str, int] = {}
    try:
        text = sandbox.read_file(f"{FOLDER}/{LINES}").decode("utf-8", "replace")
    except FileNotFoundError:
        return masks
    for line in text.splitlines():
        for path, bits in json.loads(line).items():
            masks[path] = masks.get(path, 0) | int(bits, 16)
    return masks


def frames(output: str, root: str) -> tuple[Frame, ...]:
    """Traceback entries within the project, in the order printed: innermost last."""
    found = []
    for match in FRAME.finditer(output):
        path = match.group(1) or match.group(4)
        if os.path.isabs(path):
            if not path.startswith(root + os.sep):
                continue
            path = os.path.relpath(path, root)
        found.append(Frame(path=path, line=int(match.group(2) or match.group(5)), function=match.group(3) or ""))
    return tuple(found[-40:])

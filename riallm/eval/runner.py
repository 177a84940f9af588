"""A cold run of a folder's tests in the sandbox: a fresh interpreter, every test's outcome, nothing kept.

Used for what must not lean on the warm worker: verifying injected bugs, the control runs, and the hidden tests.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from riallm.core.errors import SandboxError
from riallm.sandbox.base import MEGABYTE, Limits, Policy, Sandbox

MARK = "@@outcomes "
Opener = Callable[[Policy], Sandbox]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """How a cold run ended. `status`: test -> "passed" | "failed" | "skipped".

    broken: collection errors by file; ended: False when the run was stopped or died before telling.
    seconds: of each test; wall: of the whole run inside. entered: test -> functions as (path, first line).
    """

    ended: bool
    status: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    message: Mapping[str, str] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)
    entered: Mapping[str, frozenset[tuple[str, int]]] = field(default_factory=dict)
    wall: float = 0.0
    tail: str = ""

    @property
    def passing(self) -> frozenset[str]:
        """Tests that passed."""
        return frozenset(name for name, status in self.status.items() if status == "passed")

    @property
    def failing(self) -> frozenset[str]:
        """Tests that failed."""
        return frozenset(name for name, status in self.status.items() if status == "failed")

    @property
    def green(self) -> bool:
        """Whether the run came to its end with at least one pass and nothing red."""
        return self.ended and not self.broken and not self.failing and bool(self.passing)


@cache
def inside_text() -> str:
    """The program that runs inside."""
    return (Path(__file__).parent / "inside.py").read_text(encoding="utf-8")


def interpreter_prefixes(python: Path | None = None) -> tuple[Path, ...]:
    """Folders that the interpreter needs to see: its own prefix and, for a virtual environment, the base's."""
    found = [Path(sys.prefix), Path(sys.base_prefix)]
    if python is not None:
        for path in (python.parent.parent, python.resolve().parent.parent):
            found.append(path)
    return tuple(dict.fromkeys(path.resolve() for path in found))


def run_tests(
    folder: Path,
    args: Sequence[str],
    *,
    opener: Opener,
    seconds: float,
    python: Path | None = None,
    readable: Sequence[Path] = (),
    hash_seed: int = 0,
    calls: bool = False,
) -> Outcomes:
    """Run pytest with `args` in `folder` and gather the outcomes. A run over its time has `ended` False.

    Assertions are left as they are (`--assert=plain`): the outcome is the same, and nothing has to be rewritten.
    """
    asked = json.dumps({"args": ["--assert=plain", *args], "calls": calls, "prefix": str(folder.resolve())})
    executable = str(python or sys.executable)
    policy = Policy(
        workspace=folder.resolve(),
        readable=(*interpreter_prefixes(python), *readable),
        env={"PYTHONHASHSEED": str(hash_seed), "PYTHONDONTWRITEBYTECODE": "1"},
        limits=Limits(seconds=seconds, memory_bytes=1024 * MEGABYTE, output_bytes=16 * MEGABYTE),
    )
    with opener(policy) as sandbox:
        done = sandbox.exec([executable, "-c", inside_text(), asked])
    if done.returncode == 127 or "No module named pytest" in done.stderr:
        raise SandboxError(f"{executable} cannot run pytest inside the sandbox: {done.stderr.strip()[-300:]}")
    tail = (done.stdout + done.stderr)[-2000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if not lines or done.stopped is not None:
        return Outcomes(ended=False, wall=done.seconds, tail=tail)
    told = json.loads(lines[-1][len(MARK) :])
    places = [(path, line) for path, line in told["functions"]]
    return Outcomes(
        ended=told["code"] in (0, 1, 2, 5),
        status=told["status"],
        seconds=told["seconds"],
        message=told["message"],
        broken=told["broken"],
        entered={name: frozenset(places[at] for at in entered) for name, entered in told["entered"].items()},
        wall=told["wall"],
        tail=tail,
    )

"""A trainer in a process and session of its own: it outlives the command that started it, and is found again.

Its folder holds a lock that the trainer keeps open for as long as it lives; the lock ends with it, however it ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import riallm

LOG, METRICS, RESULT = "log.txt", "metrics.jsonl", "result.json"
End = Literal["over", "running", "failed"]
_STARTED: list[subprocess.Popen[bytes]] = []
"""Trainers of this process. They may outlive it, which `Popen` takes for an oversight when it is thrown away."""


@dataclass(slots=True, kw_only=True)
class Trainer:
    """The trainer of a folder. command: arguments of `riallm train` without the folder."""

    work: Path
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def running(self) -> bool:
        """Whether some process trains in the folder, started by this command or by an earlier one."""
        if self.process is not None and self.process.poll() is None:
            return True
        lock = self._locked()
        if lock is None:
            return True
        os.close(lock)
        return False

    def over(self) -> bool:
        """Whether the model is written."""
        return (self.work / RESULT).exists()

    def start(self) -> None:
        """Start the trainer; nothing where one runs already."""
        self.work.mkdir(parents=True, exist_ok=True)
        lock = self._locked()
        if lock is None:
            return
        root = str(Path(riallm.__file__).parents[1])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        words = [sys.executable, "-u", "-m", "riallm", "train", *self.command, "--out", str(self.work), "--json"]
        with (self.work / LOG).open("ab") as log:
            self.process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(lock,),
                env={**os.environ, "PYTHONPATH": path},
            )
        _STARTED.append(self.process)
        os.close(lock)

    def _locked(self) -> int | None:
        """The lock's descriptor, or None where somebody holds it."""
        self.work.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.work / "trainer.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return lock

    def watch(self, *, until: float, every: float, say: Callable[[str], None]) -> End:
        """Look on, starting the trainer where none runs, to its end or until `time.monotonic()` is `until`.

        A trainer of an earlier command that ended without a model is started again; one of this command is not.
        """
        began = time.monotonic()
        while True:
            ended = self.process is not None and self.process.poll() is not None
            if not self.running():
                if self.over():
                    return "over"
                if ended:
                    return "failed"
                self.start()
            if time.monotonic() >= until:
                return "running"
            say(f"{time.monotonic() - began:4.0f} s  {self.progress()}")
            self._pause(min(every, max(0.0, until - time.monotonic())))

    def _pause(self, seconds: float) -> None:
        if self.process is None:
            time.sleep(seconds)
            return
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass

    def progress(self) -> str:
        """The newest step in a line; of a run of several stages, that of each."""
        told = [f"{_stage(path)}{_told(step)}" for path in self.metrics() if (step := _last(path)) is not None]
        return "; ".join(told) or "no step yet"

    def last_step(self) -> dict[str, Any] | None:
        """The newest step as the run wrote it down."""
        steps = [step for path in self.metrics() if (step := _last(path)) is not None]
        return steps[-1] if steps else None

    def metrics(self) -> list[Path]:
        """Where the run writes its steps down, or where each stage of it that has begun does, in order."""
        plain = self.work / METRICS
        if plain.exists():
            return [plain]
        return sorted(self.work.glob(f"[0-9]*-*/{METRICS}"), key=lambda path: int(path.parent.name.partition("-")[0]))

    def log_tail(self, num_bytes: int = 64_000) -> str:
        """The end of what the trainer wrote."""
        path = self.work / LOG
        return path.read_bytes()[-num_bytes:].decode(errors="replace") if path.exists() else ""


def _stage(path: Path) -> str:
    number, dash, name = path.parent.name.partition("-")
    return f"{name}: " if dash and number.isdigit() else ""


def _last(path: Path) -> dict[str, Any] | None:
    """The last whole line."""
    whole = path.read_bytes().rpartition(b"\n")[0]
    found: dict[str, Any] | None = json.loads(whole.rpartition(b"\n")[2]) if whole else None
    return found


def _told(step: dict[str, Any]) -> str:
    bits = "" if step["bits_per_byte"] is None else f"{step['bits_per_byte']:.3f} bits/byte  "
    return (
        f"step {step['step']}  {step['nats']:.3f} nats  {bits}"
        f"{step['num_tokens'] / step['seconds']:,.0f} tokens/s  {step['flops_per_second'] / 1e12:.3f} TFLOP/s  "
        f"{100 * step['elapsed']:.0f} %"
    )

"""A process that runs llama.cpp and is asked for one measurement after another.

It is `llama_cpp_worker.py` in an interpreter that has llama-cpp-python, and waits at its stdin while it is not asked.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from riallm.core.errors import UsageError

WORKER = Path(__file__).with_name("llama_cpp_worker.py")
VARIABLE = "RIALLM_PEER_PYTHON"
INSTALL = (
    "pip install llama-cpp-python (a C++ compiler builds it for this processor), or name an interpreter that has it "
    f"with --peer-python PATH or {VARIABLE}"
)
PATIENCE = 600.0
"""Seconds in which a peer answers, or is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A way to run llama.cpp. name: begins the names of its figures. kind: type of its file. repack: as it does by
    itself, weights rearranged for its own kernels."""

    name: str
    kind: str
    repack: bool = True


@dataclass(slots=True)
class Peer:
    """A worker with a model. name: as its variant's. about: of the build; ready: of the model. The
    seconds add up over all requests: own_* in which this process waited for an answer, idle_* in which the peer waited
    for a request."""

    name: str
    process: subprocess.Popen[bytes]
    errors: Path
    patience: float
    about: Mapping[str, Any]
    ready: Mapping[str, Any] = field(default_factory=dict)
    own_cpu_seconds: float = 0.0
    own_seconds: float = 0.0
    idle_cpu_seconds: float = 0.0
    idle_seconds: float = 0.0

    def prefill(self, ids: Sequence[int]) -> float:
        """Tokens a second of reading a prompt."""
        return len(ids) / self._seconds({"do": "prefill", "ids": list(ids)})

    def decode(self, ids: Sequence[int], answer: int) -> float:
        """Tokens a second of an answer from its first token on, which belongs to the prompt."""
        return (answer - 1) / self._seconds({"do": "decode", "ids": list(ids), "tokens": answer - 1})

    def _seconds(self, request: Mapping[str, Any]) -> float:
        began, rested = time.perf_counter(), time.process_time()
        told = self.ask(request)
        self.own_cpu_seconds += time.process_time() - rested
        self.own_seconds += time.perf_counter() - began
        self.idle_cpu_seconds += number(told, "idle_cpu_seconds")
        self.idle_seconds += number(told, "idle_seconds")
        seconds = number(told, "seconds")
        if not 0 < seconds <= self.patience:
            raise UsageError(f"llama.cpp's worker says that it took {seconds} seconds; this is no measurement")
        return seconds

    def ask(self, request: Mapping[str, Any] | None) -> dict[str, Any]:
        """The answer to a request; with None, the next line. Raises UsageError for a peer that died, hangs, or says
        what is no answer."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            if request is not None:
                self.process.stdin.write(json.dumps(request).encode() + b"\n")
                self.process.stdin.flush()
            line = self._line(self.process.stdout.fileno())
        except BrokenPipeError:
            line = b""
        if not line.endswith(b"\n"):
            try:
                code = self.process.wait(10)
            except subprocess.TimeoutExpired:  # it closed its stdout and lives on
                self.process.kill()
                code = self.process.wait()
            raise UsageError(f"llama.cpp's worker ended with {code}: {last_lines(self.errors)}")
        return answer_of(line)

    def _line(self, descriptor: int) -> bytes:
        """Up to a line's end, or what there was before the pipe closed."""
        line, until = b"", time.monotonic() + self.patience
        while not line.endswith(b"\n"):
            if not select.select([descriptor], [], [], max(0.0, until - time.monotonic()))[0]:
                self.process.kill()
                raise UsageError(
                    f"llama.cpp's worker did not answer within {self.patience:g} seconds: {last_lines(self.errors)}"
                )
            found = os.read(descriptor, 1 << 16)
            if not found:
                break
            line += found
        return line


def run(python: str, *words: str, patience: float) -> bytes:
    """What the worker says that does one thing and ends. Raises UsageError where it does not run, or fails."""
    try:
        done = subprocess.run(
            [python, "-B", str(WORKER), *words],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=patience, check=False,
        )  # fmt: skip
    except OSError as error:
        raise UsageError(f"{python} does not run: {error}. {INSTALL}") from None
    except subprocess.TimeoutExpired:
        raise UsageError(f"llama.cpp's worker did not {words[0]} within {patience:g} seconds") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["nothing said"]
        if "No module named 'llama_cpp'" in said[-1]:
            raise UsageError(f"{python} has no llama-cpp-python. {INSTALL}")
        raise UsageError(f"llama.cpp's worker ended with {done.returncode} ({words[0]}): {' | '.join(said[-3:])}")
    return done.stdout


@contextmanager
def opened(
    python: str,
    about: Mapping[str, Any],
    files: Mapping[Variant, Path],
    *,
    threads: int,
    context: int,
    patience: float = PATIENCE,
) -> Iterator[list[Peer]]:
    """A worker for each variant with its file; all end with the block. about: what the interpreter's build is."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="riallm-peer-")))
        peers = []
        for variant, path in files.items():
            errors = folder / f"{variant.name}.err"
            words = [python, "-B", str(WORKER), "serve", str(path), str(threads), str(context)]
            words.append("repack" if variant.repack else "plain")
            with errors.open("wb") as sink:
                process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sink)
            stack.callback(_end, process)
            peers.append(Peer(name=variant.name, process=process, errors=errors, patience=patience, about=about))
            peers[-1].ready = peers[-1].ask(None)
        yield peers


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.close()  # the worker ends with its stdin
        process.wait(10)
    except (BrokenPipeError, subprocess.TimeoutExpired):
        process.kill()
        process.wait()
    process.stdout.close()


def answer_of(line: bytes) -> dict[str, Any]:
    """A JSON object. Raises UsageError for anything else."""
    try:
        told = json.loads(line)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise UsageError(f"llama.cpp's worker said {line[:200]!r}; expected one JSON object a line")
    return told


def number(told: Mapping[str, Any], key: str) -> float:
    """Raises UsageError where there is none under the key."""
    value = told.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"llama.cpp's worker answered without a number for {key}: {dict(told)}")
    return float(value)


def last_lines(path: Path) -> str:
    """What a worker said last."""
    lines = path.read_text("utf-8", "replace").strip().splitlines()
    return " | ".join(lines[-3:]) or "it said nothing"

"""A real server for a benchmark: `riallm serve` as a process of its own, ended with the block that asked for it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from riallm.core.errors import ClientError

ENDING = 30.0
"""Seconds in which it may end by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """address: http://host:port. said: the file that its stderr goes to."""

    process: subprocess.Popen[bytes]
    address: str
    said: Path

    def check(self) -> None:
        """Raises ClientError when it has ended. Whoever lost a request asks a moment later than the system knows."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self.process.wait(0.5)
            raise ClientError(f"the server ended with {code} while it was being asked; it said: {_end_of(self.said)}")

    def resident_mib(self) -> float | None:
        """Memory that it holds; None where the system does not say."""
        try:
            lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        except OSError:
            return None
        found = [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")]
        return found[0] if found else None


@contextlib.contextmanager
def started(words: Sequence[str]) -> Iterator[Server]:
    """`riallm serve` with these options, at a free port. Raises ClientError when it ends instead of answering."""
    command = [sys.executable, "-m", "riallm", "serve", "--port", "0", "--drain", "1", "--quiet", *words]
    with tempfile.TemporaryDirectory(prefix="riallm-serving-") as scratch:
        said = Path(scratch) / "stderr"
        with said.open("wb") as file:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=file)
        try:
            yield Server(process=process, address=_address(process, said), said=said)
        finally:
            process.terminate()
            try:
                process.wait(ENDING)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _address(process: subprocess.Popen[bytes], said: Path) -> str:
    """What it says once it answers: NAME answers at http://host:port/v1"""
    while True:
        ended = process.poll()
        told = said.read_text(encoding="utf-8", errors="replace")
        _, found, rest = told.partition(" answers at ")
        if found and "/v1" in rest:
            return rest.partition("/v1")[0]
        if ended is not None:
            raise ClientError(f"no server to measure: {_end_of(said) or f'it ended with {ended} and said nothing'}")
        time.sleep(0.05)


def _end_of(said: Path) -> str:
    return said.read_text(encoding="utf-8", errors="replace").strip()[-1000:]

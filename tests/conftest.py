"""For all tests: our records and caches go to a folder of their own, and the examples are as released afterwards."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Models in tests are tiny: on a busy machine a second thread only waits for the first. Read when torch is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What a test does not ask a model for is done without: loading one takes longer than most tests.
os.environ.setdefault("RIALLM_MODEL", "ngram")


def fingerprint(folder: Path) -> str:
    """Hash of every name, mode and byte below `folder`, caches left out."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if not {"__pycache__", ".pytest_cache"} & set(path.parts):
            data = path.read_bytes() if path.is_file() else b""
            digest.update(f"{path.relative_to(folder)} {path.lstat().st_mode:o} {len(data)} ".encode() + data)
    return digest.hexdigest()


@pytest.fixture(scope="session", autouse=True)
def own_records(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Audit records, locks and caches of the tests never reach the home of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("STATE", "CACHE"):
            patch.setenv(f"XDG_{name}_HOME", str(tmp_path_factory.mktemp(name.lower())))
        yield


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """A shell starts background jobs with Ctrl-C ignored, and so would be every program that a test starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def untouched_examples() -> Iterator[None]:
    """No test leaves a mark in examples/."""
    before = fingerprint(ROOT / "examples")
    yield
    assert fingerprint(ROOT / "examples") == before, "a test changed examples/"

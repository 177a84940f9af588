"""For all tests: our records and caches go to a folder of their own, and the examples are as released afterwards."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


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
def untouched_examples() -> Iterator[None]:
    """No test leaves a mark in examples/."""
    before = fingerprint(ROOT / "examples")
    yield
    assert fingerprint(ROOT / "examples") == before, "a test changed examples/"

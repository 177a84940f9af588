"""A project folder from a dict of files, `riallm fix` on it, and the promise that its files stay as they were."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from riallm.__main__ import main
from tests.conftest import fingerprint

MEDIAN = """\
def median(values):
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle + 1]) / 2
"""
TEST_MEDIAN = """\
from stats import median


def test_odd():
    assert median([3, 1, 2]) == 2


def test_even():
    assert median([4, 1, 3, 2]) == 2.5


def test_other_even():
    assert median([10, 20, 30, 40, 50, 70]) == 35
"""
FIXED = "ordered[middle - 1] + ordered[middle]"


@dataclass(frozen=True)
class Result:
    """Exit code, everything that was said, the object of --json."""

    code: int
    text: str
    report: dict[str, Any]


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Path]:
    """project({"a.py": text or bytes}, name="...") -> its folder."""

    def make(files: Mapping[str, str | bytes], name: str = "project") -> Path:
        root = tmp_path / name
        for path, content in files.items():
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.encode() if isinstance(content, str) else content)
        return root

    return make


@pytest.fixture
def fix(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """fix(folder, *options, changes=False): run it with --json; the folder must be as before unless told otherwise."""

    def run(root: Path, *options: str, changes: bool = False) -> Result:
        folder = root if root.is_dir() else root.parent
        before = fingerprint(folder)
        code = main(["fix", str(root), "--json", "--jobs", "1", *options])
        captured = capsys.readouterr()
        assert (fingerprint(folder) == before) is not changes, "the user's files were changed"
        return Result(code, captured.out + captured.err, json.loads(captured.out.strip().splitlines()[-1]))

    return run

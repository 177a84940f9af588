"""The bugs in examples/ are there, and what upstream did mends them: each project's own tests say so."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
PROJECTS = sorted(folder.name for folder in EXAMPLES.iterdir() if folder.is_dir())

# Project -> (file that upstream changed, tests that are red before, tests in all).
EXPECTED = {"semver": ("semver.py", 7, 256)}


def upstream_change(project: str) -> tuple[str, str]:
    """(old text, new text) of the diff in the project's section of examples/README.md."""
    sections = re.split(r"^## ", (EXAMPLES / "README.md").read_text(), flags=re.M)
    section = next(text for text in sections if text.startswith(project + "\n"))
    lines = re.search(r"```diff\n(.*?)```", section, flags=re.S)[1].splitlines(keepends=True)  # type: ignore[index]
    return tuple("".join(line[1:] for line in lines if line[0] in f" {sign}") for sign in "-+")  # type: ignore[return-value]


def closing_line(folder: Path) -> str:
    """The last line of pytest's report on a project, run as `riallm fix` would find it."""
    command = [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)
    return done.stdout.splitlines()[-1]


def test_every_example_is_expected() -> None:
    assert sorted(EXPECTED) == PROJECTS


@pytest.mark.parametrize("project", PROJECTS)
def test_red_as_released_and_green_with_upstreams_change(project: str, tmp_path: Path) -> None:
    name, num_red, num_tests = EXPECTED[project]
    copy = tmp_path / project
    shutil.copytree(EXAMPLES / project, copy)
    assert closing_line(copy).startswith(f"{num_red} failed, {num_tests - num_red} passed")

    old, new = upstream_change(project)
    source = (copy / name).read_text()
    assert source.count(old) == 1
    (copy / name).write_text(source.replace(old, new))
    assert closing_line(copy).startswith(f"{num_tests} passed")


@pytest.mark.parametrize("project", PROJECTS)
def test_small_and_with_its_licence(project: str) -> None:
    files = [path for path in (EXAMPLES / project).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) < 300_000
    assert any(path.name.startswith("LICENSE") for path in files)

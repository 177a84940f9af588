"""For the sandbox's tests: a project with odd names, each tier that works here, and what was skipped, said aloud."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sandboxing import MOUNTING, NOTES, PYTHON, Opener, need

from riallm.sandbox import open_sandbox
from riallm.sandbox.base import Limits, Policy, Tier
from riallm.sandbox.interpreter import prefixes
from riallm.sandbox.session import LaunchedSandbox


@pytest.fixture(params=[Tier.BUBBLEWRAP, Tier.NAMESPACES, Tier.LANDLOCK])
def tier(request: pytest.FixtureRequest) -> Tier:
    """Each tier in turn."""
    return need(request.param)


@pytest.fixture(params=MOUNTING)
def mounting(request: pytest.FixtureRequest) -> Tier:
    """Each tier that has mounts of its own."""
    return need(request.param)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a space and letters of two alphabets in its path."""
    folder = tmp_path / "my pröjekt ж" / "src, a:b"
    (folder / "pkg").mkdir(parents=True)
    (folder / "pkg" / "a.txt").write_text("one\n")
    (folder / "b.txt").write_text("two\n")
    (folder.parent / "sibling.txt").write_text("hidden\n")
    return folder


@pytest.fixture
def opened(project: Path) -> Iterator[Opener]:
    """Open sandboxes on `project`; they are closed at the end."""
    made: list[LaunchedSandbox] = []

    def open_one(tier: Tier | None = None, **limits: float) -> LaunchedSandbox:
        policy = Policy(workspace=project, readable=prefixes(PYTHON), limits=Limits(**({"seconds": 30.0} | limits)))
        made.append(open_sandbox(policy, tier=tier))
        return made[-1]

    yield open_one
    for one in made:
        one.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say it."""
    for note in config.stash.get(NOTES, []):
        terminalreporter.write_line(note)

"""Servers for a test, gone after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from serving import Running, running

from riallm.testing.engine import ScriptedEngine


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    """start(engine, **options of the server)"""
    with ExitStack() as stack:

        def start(engine: ScriptedEngine | None = None, **options: Any) -> Running:
            return stack.enter_context(running(engine or ScriptedEngine(), **options))

        yield start


@pytest.fixture(scope="module")
def echo() -> Iterator[Running]:
    """A server for a whole module, whose model says what it is told."""
    with running(ScriptedEngine()) as server:
        yield server

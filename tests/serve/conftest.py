"""Servers for a test, gone after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from browsing import WAIT_MS, Sheet, chromium
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


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One Chromium for all tests of the page."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Sheet]]:
    """visit(port, **options of the browser's context); at the end no console may have said anything unexpected."""
    with ExitStack() as stack:
        sheets: list[Sheet] = []

        def visit(port: int, **options: Any) -> Sheet:
            context = stack.enter_context(browser.new_context(**options))
            context.set_default_timeout(WAIT_MS)
            sheets.append(Sheet(context.new_page()))
            sheets[-1].page.goto(f"http://127.0.0.1:{port}/")
            return sheets[-1]

        yield visit
        assert [error for sheet in sheets for error in sheet.errors] == []

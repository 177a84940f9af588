"""A real Chromium for tests of the page, and what one page said and did in it. Needs the extra `browser`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from serving import Running

from riallm.testing.engine import ByteTokenizer, ScriptedEngine
from riallm.tokenizer.chat import CHATML

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WAIT_MS = 60_000
"""How long a page may take to come to what is expected of it."""


@dataclass
class Sheet:
    """A page that is open, what its console said, and where it asked."""

    page: Any
    errors: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.page.on("console", lambda said: said.type in ("error", "warning") and self.errors.append(said.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))

    @property
    def prompt(self) -> Any:
        return self.page.get_by_role("textbox", name="Message")

    @property
    def log(self) -> Any:
        return self.page.get_by_role("log", name="Conversation")

    def said(self, number: int) -> Any:
        """Text of a question or an answer, from 0."""
        return self.log.get_by_role("article").nth(number).locator("pre")

    def below(self, number: int) -> Any:
        """The line below it."""
        return self.log.get_by_role("article").nth(number).locator("small")

    def ask(self, text: str) -> None:
        self.prompt.fill(text)
        self.prompt.press("Enter")

    def only(self, *expected: str) -> None:
        """The console complained of these things and nothing else, which is forgiven."""
        assert all(any(part in error for part in expected) for error in self.errors), self.errors
        self.errors.clear()


@contextmanager
def chromium() -> Iterator[Any]:
    """The system's browser, or the one that `playwright install chromium` fetched; a skip where there is neither."""
    reason = "riallm[browser] is not installed; make test-browser installs it"
    with pytest.importorskip("playwright.sync_api", reason=reason).sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        found = next(filter(None, map(shutil.which, BROWSERS)), None) or (str(own) if own.exists() else None)
        if found is None:
            pytest.skip(
                "no Chromium here. Run: sudo apt-get install chromium, or: .venv/bin/playwright install chromium"
            )
        # Nothing but our page is opened in it, so that it needs no sandbox of its own, which root could not have.
        browser = playwright.chromium.launch(executable_path=found, chromium_sandbox=False)
        try:
            yield browser
        finally:
            browser.close()


def expect(place: Any) -> Any:
    """Playwright's assertions, which wait until they hold."""
    from playwright.sync_api import expect

    expect.set_options(timeout=WAIT_MS)
    return expect(place)


def chatty(**more: Any) -> ScriptedEngine:
    """An engine whose model is one for chats."""
    return ScriptedEngine(tokenizer=ByteTokenizer(chat_template=CHATML), **{"context": 1_000_000, **more})


def asked(server: Running, at: int = -1) -> str:
    """The prompt that the engine was given."""
    return server.engine.tokenizer.decode_bytes(server.engine.asked[at].ids, specials=True).decode()

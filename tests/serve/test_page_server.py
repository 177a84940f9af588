"""The page and its server: what is refused, a key, a server that dies, and the figures of a real model."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from browsing import Sheet, chatty, expect
from serving import Running

from riallm.serve.served import key_hash

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

Start = Callable[..., Running]
Visit = Callable[..., Sheet]


def test_what_is_refused_goes_back_into_the_box(start: Start, visit: Visit) -> None:
    sheet = visit(start(chatty(context=100, answers={"x": "y" * 200})).port)
    sheet.ask("x" * 200)
    expect(sheet.page.get_by_role("alert")).to_contain_text("maximum context length is 100 tokens")
    expect(sheet.prompt).to_have_value("x" * 200)
    expect(sheet.log.get_by_role("article")).to_have_count(0)
    sheet.only("400 (Bad Request)")
    sheet.ask("x")
    expect(sheet.below(1)).to_contain_text("this is as long as an answer can be")
    expect(sheet.page.get_by_role("alert")).to_be_empty()


def test_an_engine_that_fails_is_said_below_the_answer(start: Start, visit: Visit) -> None:
    sheet = visit(start(chatty(fail_after=3, answers={"go": "abcdef"})).port)
    sheet.ask("go")
    expect(sheet.below(1)).to_contain_text("The engine failed")
    expect(sheet.said(1)).to_have_text("abc")


def test_a_key_is_asked_for_where_one_is_needed(start: Start, visit: Visit) -> None:
    server = start(chatty(), keys=(key_hash("sk-right"),))
    sheet = visit(server.port)
    alert, key = sheet.page.get_by_role("alert"), sheet.page.get_by_label("API key")
    expect(alert).to_contain_text("asks for an API key")
    expect(key).to_be_focused()
    key.fill("sk-wrong")
    key.press("Enter")
    expect(alert).to_contain_text("does not know this API key")
    key.fill("sk-right")
    sheet.page.get_by_role("button", name="Use it").click()
    expect(sheet.page.get_by_role("combobox", name="Model")).to_have_value("scripted")
    expect(alert).to_be_empty()
    expect(key).to_be_hidden()
    expect(sheet.prompt).to_be_focused()
    sheet.ask("hello")
    expect(sheet.below(1)).to_contain_text("tokens")
    # It does not go on asking with a key that is none.
    assert len(sheet.errors) == 2
    sheet.only("401 (Unauthorized)")


def test_no_key_is_asked_for_where_none_is_needed(start: Start, visit: Visit) -> None:
    sheet = visit(start(chatty()).port)
    expect(sheet.page.locator("#requests")).to_contain_text("running")
    expect(sheet.page.get_by_label("API key")).to_be_hidden()


SERVER = """
import sys
from riallm.serve.app import create_app
from riallm.serve.prompts import PlainPrompts
from riallm.serve.run import serve
from riallm.serve.served import Served, ServeOptions
from riallm.testing.engine import ByteTokenizer, ScriptedEngine

engine = ScriptedEngine(answers={"go": "word " * 80_000}, pause=0.001, context=1_000_000)
served = Served(engine=engine, tokenizer=engine.tokenizer, prompts=PlainPrompts(engine.tokenizer))
app = create_app({sys.argv[1]: served}, ServeOptions())
serve(app, port=int(sys.argv[2]), ready=lambda address: print(address, flush=True))
"""


@pytest.fixture
def process() -> Iterator[Callable[..., tuple[subprocess.Popen[str], int]]]:
    """process(words of a command): it runs, and the port that it named."""
    with ExitStack() as stack:

        def process(*words: str) -> tuple[subprocess.Popen[str], int]:
            made = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            stack.enter_context(made)
            stack.callback(made.kill)
            assert made.stdout is not None
            told = ""
            for line in made.stdout:
                told += line
                if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                    # What else it says is read, lest it wait for a reader.
                    threading.Thread(target=made.stdout.read, daemon=True).start()
                    return made, int(found[1])
            raise AssertionError(told)

        yield process


def test_a_server_that_dies_and_comes_back(process: Callable[..., Any], visit: Visit) -> None:
    first, port = process(sys.executable, "-c", SERVER, "first", "0")
    sheet = visit(port)
    away, model = sheet.page.get_by_role("status"), sheet.page.get_by_role("combobox", name="Model")
    sheet.ask("go")
    expect(sheet.said(1)).to_contain_text("word")
    first.kill()
    expect(sheet.below(1)).to_have_text("Cut off here: the server went away.")
    expect(away).to_contain_text("The server does not answer")
    sheet.ask("are you there")
    expect(sheet.prompt).to_have_value("are you there")
    expect(sheet.log.get_by_role("article")).to_have_count(2)
    first.wait()
    process(sys.executable, "-c", SERVER, "second", str(port))
    expect(model).to_have_value("second")
    expect(away).to_be_empty()
    sheet.prompt.press("Enter")
    expect(sheet.said(3)).to_have_text("are you there")
    sheet.only("net::ERR_")


def test_ria_nano_and_its_figures(process: Callable[..., Any], visit: Visit) -> None:
    _, port = process(sys.executable, "-m", "riallm", "serve", "--model", "ria-nano", "--port", "0", "--quiet")
    sheet = visit(port)
    speed, pages, memory = (sheet.page.locator(f"#{name}") for name in ("speed", "pages", "memory"))
    expect(speed).to_have_text("0.00 written")
    expect(pages).to_have_text(re.compile(r"^0of \d+, 0 cached$"))
    expect(memory).to_have_text(re.compile(r"^\d{3,} MiB\d+\.\d GiB free$"))
    before = memory.text_content()
    expect(sheet.page.locator("#note")).to_contain_text("no chat model")
    sheet.ask("".join(f"def method_{number}(self, value):\n    return value + {number}\n\n" for number in range(20)))
    expect(speed).to_have_text(re.compile(r"^(?!0\.0)\d+\.\d[1-9]\d* written$"))
    expect(pages).not_to_contain_text(", 0 cached")
    expect(memory).not_to_have_text(before)
    sheet.page.keyboard.press("Escape")
    assert sheet.said(1).text_content()

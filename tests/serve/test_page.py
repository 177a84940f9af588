"""The page at `/` in a real Chromium: it chats, runs nothing that is said, fits, and can be used by ear and keys."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from browsing import Sheet, asked, chatty, expect
from serving import Running

from riallm.serve.served import key_hash
from riallm.testing.engine import ScriptedEngine

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

Start = Callable[..., Running]
Visit = Callable[..., Sheet]

ENDLESS = {"go": "word " * 80_000}
EVIL = "<img src=x onerror='window.hurt=1'><script>window.hurt=1</script></pre><b>&amp;</b>"


def test_a_conversation(start: Start, visit: Visit) -> None:
    server = start(chatty(answers={"and\nthen": "nothing\n  more", "hello": "Grüße ✓ 😀"}))
    sheet = visit(server.port)
    expect(sheet.page.get_by_role("combobox", name="Model")).to_have_value("scripted")
    sheet.ask("hello")
    expect(sheet.said(1)).to_have_text("Grüße ✓ 😀")
    expect(sheet.below(1)).to_have_text(re.compile(r"^\d+ tokens read, 16 written\.$"))
    sheet.prompt.fill("and")
    sheet.prompt.press("Shift+Enter")
    sheet.prompt.press_sequentially("then")
    # Enter that ends a composed character is not one that sends.
    composing = {"key": "Enter", "isComposing": True, "bubbles": True, "cancelable": True}
    sheet.prompt.dispatch_event("keydown", composing)
    expect(sheet.prompt).to_have_value("and\nthen")
    sheet.page.get_by_role("button", name="Send").click()
    expect(sheet.below(3)).to_contain_text("tokens")
    assert [sheet.said(at).text_content() for at in range(4)] == [
        "hello", "Grüße ✓ 😀", "and\nthen", "nothing\n  more"
    ]  # fmt: skip
    expect(sheet.prompt).to_be_focused()
    expect(sheet.prompt).to_have_value("")
    turns = "user\nhello<|im_end|>\n<|im_start|>assistant\nGrüße ✓ 😀<|im_end|>\n<|im_start|>user\nand\nthen<|im_end|>"
    assert turns in asked(server)
    assert sheet.hosts == {f"127.0.0.1:{server.port}"}


def test_a_model_that_is_no_chat_model_goes_on_with_the_text(start: Start, visit: Visit) -> None:
    server = start(ScriptedEngine(answers={"def add": "(a, b):\n    return a + b"}))
    sheet = visit(server.port)
    sheet.ask("def add")
    expect(sheet.below(1)).to_have_text("7 tokens read, 24 written.")
    assert sheet.said(1).text_content() == "(a, b):\n    return a + b"
    assert asked(server) == "def add"


def test_an_answer_of_nothing_is_one(start: Start, visit: Visit) -> None:
    sheet = visit(start(chatty(answers={"go": ""})).port)
    sheet.ask("go")
    expect(sheet.below(1)).to_contain_text(" 0 written")
    assert sheet.said(0).text_content() == "go"


def test_an_answer_streams_and_is_stopped(start: Start, visit: Visit) -> None:
    server = start(chatty(answers=ENDLESS, pause=0.001))
    sheet = visit(server.port)
    stop = sheet.page.get_by_role("button", name="Stop")
    expect(stop).to_be_disabled()
    for at, end in enumerate((lambda: stop.click(), lambda: sheet.page.keyboard.press("Escape"))):
        sheet.ask("go")
        expect(sheet.said(2 * at + 1)).to_contain_text("word word")
        assert server.engine.load().running == 1
        expect(sheet.log).to_have_attribute("aria-busy", "true")
        expect(sheet.page.locator("#requests")).to_have_text("1running, 0 waiting")
        end()
        expect(sheet.below(2 * at + 1)).to_have_text("Stopped.")
        expect(sheet.log).to_have_attribute("aria-busy", "false")
        server.settled()
        expect(sheet.prompt).to_be_focused()
    kept = sheet.said(1).text_content()
    assert f"<|im_start|>assistant\n{kept}<|im_end|>" in asked(server)
    expect(sheet.page.locator("#requests")).to_have_text("0running, 0 waiting")


def test_whoever_reads_further_up_stays_there(start: Start, visit: Visit) -> None:
    server = start(chatty(answers={"go": "line\n" * 80_000}, pause=0.001))
    sheet = visit(server.port)
    sheet.ask("go")
    expect(sheet.said(1)).to_contain_text("line\n" * 100)
    assert sheet.log.evaluate("log => log.scrollHeight - log.scrollTop - log.clientHeight") < 60
    sheet.log.evaluate("log => { log.scrollTop = 0; }")
    there = sheet.said(1).text_content().count("line")
    expect(sheet.said(1)).to_contain_text("line\n" * (there + 50))
    assert sheet.log.evaluate("log => log.scrollTop") == 0


def test_clearing_ends_the_answer_and_forgets(start: Start, visit: Visit) -> None:
    server = start(chatty(answers=ENDLESS, pause=0.001))
    sheet = visit(server.port)
    sheet.ask("go")
    expect(sheet.said(1)).to_contain_text("word")
    sheet.page.get_by_role("button", name="Clear").click()
    server.settled()
    expect(sheet.log.get_by_role("article")).to_have_count(0)
    sheet.ask("anew")
    expect(sheet.below(1)).to_contain_text("tokens")
    assert "word" not in asked(server)
    assert asked(server).count("<|im_start|>user") == 1


def test_what_is_said_is_text(start: Start, visit: Visit) -> None:
    server = start(chatty(answers={"go": EVIL}, context=400))
    sheet = visit(server.port)
    sheet.ask(f"go {EVIL}")
    expect(sheet.below(1)).to_contain_text("tokens")
    assert (sheet.said(0).text_content(), sheet.said(1).text_content()) == (f"go {EVIL}", EVIL)
    sheet.ask(EVIL * 5)
    expect(sheet.page.get_by_role("alert")).to_contain_text("maximum context length")
    sheet.only("400 (Bad Request)")
    assert sheet.log.locator("img, script, b").count() == 0
    assert sheet.page.evaluate("'hurt' in window") is False


def test_markup_that_came_into_the_page_could_do_nothing(start: Start, visit: Visit) -> None:
    other = start(chatty())
    sheet = visit(start(chatty()).port)
    sheet.page.evaluate(
        """html => {
            document.getElementById("note").innerHTML = html;
            const script = document.createElement("script");
            script.textContent = "window.hurt = 1";
            document.body.append(script);
        }""",
        EVIL,
    )
    ask = "address => fetch(address).then(() => 'came through', () => 'refused')"
    assert sheet.page.evaluate(ask, f"http://127.0.0.1:{other.port}/health") == "refused"
    assert other.lines == []
    while sum("Content Security Policy" in error for error in sheet.errors) < 4:
        sheet.page.wait_for_timeout(20)
    sheet.only("Content Security Policy", "Fetch API cannot load")
    assert sheet.page.evaluate("'hurt' in window") is False


def test_every_control_has_a_name(start: Start, visit: Visit) -> None:
    sheet = visit(start(chatty(), keys=(key_hash("sk"),)).port)
    expect(sheet.page.get_by_label("API key")).to_be_visible()
    session = sheet.page.context.new_cdp_session(sheet.page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    controls = [node for node in nodes if any(each["name"] == "focusable" for each in node.get("properties", ()))]
    names = {node["name"]["value"] for node in controls}
    assert names >= {"API key", "Use it", "Model", "Conversation", "Message", "Send", "Clear"}
    assert all(names)
    sheet.only("401 (Unauthorized)")


# Of each selector's colour against the page's own, as WCAG defines it.
CONTRAST = """selectors => {
    const light = colour => {
        const [red, green, blue] = colour.match(/[\\d.]+/g).map(each => each / 255)
            .map(each => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    const canvas = document.createElement("i");
    canvas.style.color = "Canvas";
    document.body.append(canvas);
    const ground = light(getComputedStyle(canvas).color);
    return selectors.map(each => {
        const text = light(getComputedStyle(document.querySelector(each)).color);
        return [each, (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05)];
    });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_it_fits_and_can_be_read(start: Start, visit: Visit, width: int, scheme: str) -> None:
    server = start(chatty(answers={"go": "long_name" * 60}))
    sheet = visit(server.port, viewport={"width": width, "height": 700}, color_scheme=scheme)
    sheet.ask("go" + "x" * 300)
    expect(sheet.below(1)).to_contain_text("tokens")
    for part in ("html", "#log"):
        assert sheet.page.locator(part).evaluate("each => each.scrollWidth - each.clientWidth") == 0, part
    for button in ("Send", "Stop", "Clear"):
        box = sheet.page.get_by_role("button", name=button).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["y"] + box["height"] <= 700, button
    found = sheet.page.evaluate(
        CONTRAST, ["h1", "h2", "pre", "small", "dt", "dd", "#note", "#away", "#error", "#clear"]
    )
    assert [each for each in found if each[1] < 4.5] == []
    ink = sheet.page.evaluate("getComputedStyle(document.querySelector('pre')).color")
    assert ink == ("rgb(0, 0, 0)" if scheme == "light" else "rgb(255, 255, 255)")

"""Calls of tools read out of text, however the text is cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riallm.core.errors import UsageError
from riallm.serve.grammar import Grammars
from riallm.serve.tool_calls import Arguments, Begin, CallReader, Event
from riallm.testing.engine import ByteTokenizer

NAMES = ("read", "run")


def call(name: str, arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments}, ensure_ascii=False)}\n</tool_call>"


def read(pieces: list[str]) -> tuple[str, list[tuple[str, str]]]:
    """(the text, each call's name and arguments)"""
    reader = CallReader(NAMES)
    events: list[Event] = [event for piece in pieces for event in reader.feed(piece)]
    events += reader.finish()
    calls: list[tuple[str, str]] = []
    ids = set()
    for event in events:
        if isinstance(event, Begin):
            assert event.index == len(calls)
            ids.add(event.id)
            calls.append((event.name, ""))
        elif isinstance(event, Arguments):
            assert event.index == len(calls) - 1
            calls[-1] = (calls[-1][0], calls[-1][1] + event.text)
    assert reader.calls == len(calls) == len(ids)
    return "".join(event for event in events if isinstance(event, str)), calls


@pytest.mark.parametrize(
    ("text", "said", "calls"),
    [
        ("just text", "just text", []),
        ("  x < y <tool", "  x < y <tool", []),
        ("a\n\n" + call("read", {"p": 1}), "a", [("read", '{"p": 1}')]),
        (call("read", {}) + "\n" + call("run", {"c": "</tool_call>{\\"}), "", None),
        (call("read", {}) + "\nthen\n", "then", [("read", "{}")]),
        (call("run", {"c": 'say "}" and \\'}) + " so", "so", [("run", json.dumps({"c": 'say "}" and \\'}))]),
        # No close at the end, since some models end there.
        ('<tool_call>\n{"name": "run", "arguments": {"c": [1]}}', "", [("run", '{"c": [1]}')]),
        # Cut off in the middle: what was said is told.
        ('<tool_call>\n{"name": "run", "arguments": {"c": "l', "", [("run", '{"c": "l')]),
        ('<tool_call>{"arguments": {"a": 1}, "name": "run"}</tool_call>', "", [("run", '{"a": 1}')]),
        ('<tool_call>{"name": "run", "parameters": {"a": 1}}</tool_call>', "", [("run", '{"a": 1}')]),
        ('<tool_call>{"name": "run", "arguments": "{\\"a\\": 1}"}</tool_call>', "", [("run", '{"a": 1}')]),
        ('<tool_call>{"name": "run"}</tool_call>', "", [("run", "{}")]),
        (call("fly", {"a": 1}), call("fly", {"a": 1}), []),
        ("a\n<tool_call>no JSON</tool_call> more", "a\n<tool_call>no JSON</tool_call> more", []),
        ("<tool_call>open", "<tool_call>open", []),
        ("\n\n", "\n\n", []),
    ],
)
def test_what_is_said_and_what_is_called(text: str, said: str, calls: Any) -> None:
    if calls is None:
        calls = [("read", "{}"), ("run", json.dumps({"c": "</tool_call>{\\"}))]
    assert read([text]) == (said, calls)
    assert read(list(text)) == (said, calls)


INNER = st.lists(st.text(max_size=3), max_size=2) | st.dictionaries(
    st.text(max_size=3), st.text(max_size=3), max_size=2
)
VALUES = st.text(max_size=8) | st.integers() | INNER


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_cuts_do_not_matter(data: st.DataObject) -> None:
    made = data.draw(
        st.lists(
            st.tuples(st.sampled_from(NAMES), st.dictionaries(st.text(max_size=4), VALUES, max_size=3)), max_size=3
        )
    )
    text = "Well.\n" + "\n".join(call(name, arguments) for name, arguments in made)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    said, calls = read(pieces)
    assert said.strip() == "Well."
    assert [(name, json.loads(arguments)) for name, arguments in calls] == made


def follow(grammar: Any, text: str) -> bool:
    """Whether a grammar lets a text through, byte by byte, to where it may end."""
    for byte in text.encode():
        allowed = grammar.allowed()
        if grammar.complete or not allowed[byte // 8] >> (byte % 8) & 1:
            return False
        grammar.accept(byte)
    allowed = grammar.allowed()
    return grammar.complete or bool(allowed[256 // 8] >> (256 % 8) & 1)


def test_grammars_let_through_what_they_say() -> None:
    grammars = Grammars(ByteTokenizer(), vocab_size=320)
    assert len(grammars.json_object().allowed()) * 8 >= 320
    assert follow(grammars.json_object(), '{"a": [1, {"b": null}]}')
    assert not follow(grammars.json_object(), "[1]")
    assert not follow(grammars.json_object(), '{"a": 1')
    assert not follow(grammars.json_object(), '{\n\n "a": 1}'), "no white space without end"
    schema = {"$defs": {"n": {"type": "integer"}}, "type": "object", "properties": {"a": {"$ref": "#/$defs/n"}},
              "required": ["a"], "additionalProperties": False}  # fmt: skip
    assert follow(grammars.json_schema(schema), '{"a": 12}')
    assert not follow(grammars.json_schema(schema), '{"a": "x"}')
    assert follow(grammars.regex("[ab]+c?"), "abac")
    assert not follow(grammars.regex("[ab]+c?"), "abcc")


def test_a_grammar_that_explodes_is_no_answer() -> None:
    grammar = Grammars(ByteTokenizer()).regex("(a?){500}a{500}")
    with pytest.raises(UsageError, match="too many expressions"):
        for _ in range(100):
            grammar.allowed()
            grammar.accept(97)
    with pytest.raises(UsageError, match="too many expressions"):
        assert not grammar.complete


def test_the_grammar_of_calls() -> None:
    grammars = Grammars(ByteTokenizer())
    parameters = {"$defs": {"n": {"type": "integer"}}, "type": "object", "properties": {"a": {"$ref": "#/$defs/n"}},
                  "required": ["a"], "additionalProperties": False}  # fmt: skip
    tools = [
        {"type": "function", "function": {"name": "read", "parameters": parameters}},
        {"type": "function", "function": {"name": "run"}},
    ]
    one, two = call("read", {"a": 1}), call("run", {"b": []})
    assert follow(grammars.tool_calls(tools, parallel=True), one)
    assert follow(grammars.tool_calls(tools, parallel=True), f"{one}\n{two}")
    assert follow(grammars.tool_calls(tools, parallel=False), two)
    assert not follow(grammars.tool_calls(tools, parallel=False), f"{one}\n{two}")
    for wrong in ("hello", call("fly", {}), call("read", {}), call("read", {"a": "x"})):
        assert not follow(grammars.tool_calls(tools, parallel=True), wrong), wrong
    answer = {"type": "object", "properties": {"x": {"const": 1}}, "required": ["x"], "additionalProperties": False}
    free = grammars.text_and_calls
    for right in ("", "hello\n<tool", f"well\n{one}", f"{one}\n{two}\nso", f"{one}{two}"):
        assert follow(free(tools, parallel=True), right), right
    for wrong in (call("fly", {}), f"x {call('read', {})}", "<tool_call>hello", f"{one} <tool_call>x"):
        assert not follow(free(tools, parallel=True), wrong), wrong
    assert follow(free(tools, parallel=False), f"well {one} so")
    either = {"parallel": True, "answer": answer}
    assert follow(grammars.tool_calls(tools, **either), '{"x": 1}')  # type: ignore[arg-type]
    assert follow(grammars.tool_calls(tools, **either), one)  # type: ignore[arg-type]
    assert not follow(grammars.tool_calls(tools, **either), '{"x": 2}')  # type: ignore[arg-type]

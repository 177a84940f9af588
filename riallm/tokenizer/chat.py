"""Chat templates: a conversation as the text, and then the ids, that a model was trained to go on from.

They are jinja as Hugging Face writes it, run in its sandbox. Text of users that looks like a special token stays text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

from riallm.core.errors import UsageError
from riallm.tokenizer.text import TextTokenizer

if TYPE_CHECKING:
    from jinja2 import Template

CHATML = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- '# Tools\\n\\nYou may call one or more functions to assist with the user query.\\n\\n' }}
    {{- 'You are provided with function signatures within <tools></tools> XML tags:\\n<tools>' }}
    {%- for tool in tools %}
        {{- '\\n' }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- '\\n</tools>\\n\\nFor each function call, return a json object with function name and arguments ' }}
    {{- 'within <tool_call></tool_call> XML tags:\\n<tool_call>\\n{"name": <function-name>, ' }}
    {{- '"arguments": <args-json-object>}\\n</tool_call><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- elif message.tool_calls %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\\n' + message.content }}
        {%- endif %}
        {%- for call in message.tool_calls %}
            {{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role != 'system' or not loop.first %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
"""For a model that has ChatML's markers and no template: the layout of Qwen2.5, tools in Hermes' way."""

ROLES = """\
{%- for message in messages %}
    {{- message.role + ': ' + message.content + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- 'assistant:' }}
{%- endif %}
"""
"""For a model that was never trained to chat: roles as words. It knows no tools."""


class ChatTemplate:
    """One template, compiled once. Needs the extra `serve`."""

    def __init__(self, source: str, *, variables: Mapping[str, str] | None = None) -> None:
        """variables: bos_token and the like. Raises UsageError for a template that is no jinja."""
        self.source = source
        self._variables = dict(variables or {})
        self._template = _compile(source)

    @property
    def tools(self) -> bool:
        """Whether it says anything about tools."""
        return "tools" in self.source

    def render(
        self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] = (), answer: bool = True
    ) -> str:
        """The text. answer: end with what begins an answer. Raises UsageError when the template refuses."""
        from jinja2 import TemplateError

        try:
            return self._template.render(
                messages=list(messages),
                tools=list(tools) or None,
                documents=None,
                add_generation_prompt=answer,
                **self._variables,
            )
        except (TemplateError, TypeError, ValueError, KeyError, RecursionError) as error:
            raise UsageError(
                f"the model's chat template refuses these messages: {error}; change their roles or their order"
            ) from None

    def encode(
        self,
        tokenizer: TextTokenizer,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> list[int]:
        """The ids that an answer follows. Specials come of the template alone, never of what the messages say."""
        strange = _absent(json.dumps([list(messages), list(tools)], ensure_ascii=False, default=str))
        names = _any_of(tokenizer.specials)
        # Answers hold markers such as </think>, which templates look for; only what ends or begins a turn is kept out.
        turns = _any_of(name for name, index in tokenizer.specials.items() if index in tokenizer.hidden)
        guarded = [_guard(each, turns if each.get("role") == "assistant" else names, strange) for each in messages]
        text = self.render(guarded, tools=[_guard(tool, names, strange) for tool in tools])
        if strange not in text:
            return tokenizer.encode(text, specials=True)
        ids: list[int] = []
        for piece in tokenizer.pieces(text):
            ids += [piece] if isinstance(piece, int) else tokenizer.encode(piece.replace(strange, ""))
        return ids


def template_of(tokenizer: TextTokenizer, *, variables: Mapping[str, str] | None = None) -> ChatTemplate:
    """The model's own template, or ChatML where the model has its markers, or roles as words."""
    if tokenizer.chat_template is not None:
        return ChatTemplate(tokenizer.chat_template, variables=variables)
    chatml = {"<|im_start|>", "<|im_end|>"} <= set(tokenizer.specials)
    return ChatTemplate(CHATML if chatml else ROLES, variables=variables)


def _compile(source: str) -> Template:
    """As transformers does it (utils/chat_template_utils.py), so that templates of models mean what they say."""
    from jinja2 import TemplateSyntaxError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.nodes import Node
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks what an assistant wrote, for training; here it is what it holds."""

        tags = {"generation"}  # noqa: RUF012 - as jinja declares it

        def parse(self, parser: Parser) -> list[Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    extensions: list[Any] = [loopcontrols, Generation]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        return environment.from_string(source)
    except TemplateSyntaxError as error:
        raise UsageError(f"the model's chat template is no jinja (line {error.lineno}: {error.message})") from None


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja's own would write HTML's escapes.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> NoReturn:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _absent(text: str) -> str:
    """A letter of the private use area that the text does not have."""
    return next(chr(code) for code in range(0xE000, 0xF900) if chr(code) not in text)


def _guard(value: Any, names: re.Pattern[str] | None, strange: str) -> Any:
    """The value with names of specials broken up by `strange`, in keys too."""
    if isinstance(value, str):
        # A name may hold another one, so what was broken is looked at again.
        while names is not None and names.search(value):
            value = names.sub(lambda found: found[0][:1] + strange + found[0][1:], value)
        return value
    if isinstance(value, Mapping):
        return {_guard(key, names, strange): _guard(item, names, strange) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_guard(item, names, strange) for item in value]
    return value


def _any_of(names: Iterable[str]) -> re.Pattern[str] | None:
    longer = sorted((name for name in names if len(name) > 1), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longer))) if longer else None

"""Writes docs/cli.md from the program's own help, and docs/api.md from the server's table of fields.

`make docs` runs it, and a test fails when a page is old.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from riallm.__main__ import COMMANDS
from riallm.serve.fields import TABLE, Fate

PAGE = Path(__file__).parent / "cli.md"
HEAD = """# Every command, and its options

This page is written by `make docs` from the program's own help; edit the program, not the page.
"""
API = Path(__file__).parent / "api.md"
API_HEAD = """# What the server answers

`riallm serve` speaks OpenAI's API and llama.cpp's `/infill`, so clients of either need only its address. This page is
written by `make docs` from `riallm/serve/fields.py`; edit that table, not the page.

| path | what it is |
| --- | --- |
| POST /v1/chat/completions | chat, with tools as function objects and answers held to a schema |
| POST /v1/completions | text or ids gone on with; with `suffix` the hole between them |
| POST /v1/responses | chat as items and named events; of a model with a memory, the memory behind it is kept |
| DELETE /v1/responses/ID | forget one memory |
| POST /v1/conversations, GET and DELETE /v1/conversations/ID | a name for where a conversation with a memory stands |
| POST /v1/embeddings | a vector for each text |
| POST /infill | llama.cpp's, for editors |
| GET /v1/models, /props, /health | what is served |
| GET /load, /metrics | what it is doing now, as JSON and for Prometheus |
| GET / | a page to try it |

The paths are there without `/v1` as well. Errors have OpenAI's shape, `{"error": {message, type, param, code}}`, and
`param` names the field. A field that is not listed here is 400, a request behind too many 429 with `Retry-After`,
a body that is too long 413, a request that takes too long 504, and an engine that fails 500. In a stream, whose status
is out already, it is an event with `error`.

Text of users never becomes a special token: not in messages, not in files, and not in prompts, but for a prompt of
`/v1/completions` that has all three markers of a hole. A client that goes away, or reads nothing for 20 seconds, frees
what its request held. Each request is one line of JSON in the log, without a word of what was said, under the id
that it has in `x-request-id`.

Requests must name this machine: an address, `localhost`, or a host that was allowed. Pages of other sites may not call
unless their origin was allowed, and only loopback is listened on unless `--public` is given, which needs keys.
"""
API_TITLES = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
    "responses": "/v1/responses",
    "conversations": "/v1/conversations",
    "infill": "/infill",
}
INNER = re.compile(r"^    ([a-z][\w-]*)(?:  |$)", flags=re.M)


def help_of(*command: str) -> str:
    """What `riallm COMMAND --help` prints on a terminal of 100 columns without colours."""
    env = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "PYTHON_COLORS": "0"}
    argv = [sys.executable, "-m", "riallm", *command, "--help"]
    done = subprocess.run(argv, cwd=PAGE.parents[1], env=env, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise RuntimeError(f"riallm {' '.join(command)} --help ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout.rstrip() + "\n"


def section(*command: str) -> str:
    """The page's part on one command, and on the commands inside it."""
    text = help_of(*command)
    title = f"\n## riallm {' '.join(command)}\n" if command else ""
    page = f"{title}\n```text\n{text}```\n"
    return page + "".join(section(*command, name) for name in inner(text) if command)


def inner(text: str) -> list[str]:
    """Commands inside a command, when its usage says that something follows: argparse indents them by four."""
    if not re.search(r"^usage:.* \.\.\.$", text, flags=re.M):
        return []
    return INNER.findall(text.partition("positional arguments:")[2].partition("\n\n")[0])


def page() -> str:
    """The whole page, in the order of the command table."""
    return HEAD + section() + "".join(section(name) for name in COMMANDS)


def api() -> str:
    """The page on the server: for every endpoint its fields, those that are honoured first."""
    text = API_HEAD
    for endpoint, fields in TABLE.items():
        text += f"\n## {API_TITLES[endpoint]}\n\n| field | | |\n| --- | --- | --- |\n"
        for name, field in sorted(fields.items(), key=lambda item: list(Fate).index(item[1].fate)):
            accepted = f" (unless {', '.join(map(json.dumps, field.accepted))})" if field.accepted else ""
            text += f"| `{name}` | {field.fate}{accepted} | {field.word} |\n"
    return text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    API.write_text(api(), encoding="utf-8")

"""A router before two servers, each a process: prefixes stay where they were read, and a dead server loses nothing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import openai
import pytest

from riallm.core.errors import UsageError
from riallm.serve.router import CHUNK, Backend, Prefixes, Router, create_router
from riallm.serve.served import ServeOptions
from riallm.testing.tiny import write_tiny


def begun(*words: str) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen([sys.executable, "-m", "riallm", *words], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = process.stderr.readline()
    assert " at http://" in line, line
    return process, line.split(" at ")[1].split()[0]


@pytest.fixture
def three(tmp_path: Path) -> Iterator[tuple[list[subprocess.Popen[str]], str]]:
    """Two servers and the router before them; the router's address."""
    folder = write_tiny(tmp_path / "tiny", context=1024)
    made = [begun("serve", "--model", str(folder), "--port", "0", "--quiet") for _ in range(2)]
    made.append(begun("route", "--port", "0", *(word for _, url in made for word in ("--to", url.removesuffix("/v1")))))
    yield [process for process, _ in made], made[-1][1]
    for process, _ in made:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def test_prefixes_stay_where_they_were_read(three: tuple[list[subprocess.Popen[str]], str]) -> None:
    processes, address = three
    client = openai.OpenAI(base_url=address, api_key="none", max_retries=0)
    long = {name: f"{name} = 1\n" * 110 for name in ("alpha", "omega")}

    def cached(text: str) -> int:
        answer = client.completions.create(model="tiny", prompt=text, max_tokens=3, temperature=0.0)
        assert answer.usage is not None and answer.usage.prompt_tokens_details is not None
        return answer.usage.prompt_tokens_details.cached_tokens or 0

    def asked() -> list[int]:
        told = httpx2.get(address.replace("/v1", "/router")).json()["servers"]
        return [server["asked"] for server in told]

    assert cached(long["alpha"]) == cached(long["omega"]) == 0
    assert asked() == [1, 1]  # another prefix went to the other server
    assert cached(long["alpha"] + "x") > 0 and cached(long["omega"] + "y") > 0 and cached(long["alpha"] + "z") > 0
    assert sorted(asked()) == [2, 3]
    pieces = list(client.completions.create(model="tiny", prompt="def", max_tokens=5, stream=True))
    assert pieces[-1].choices[0].finish_reason is not None
    foreign = httpx2.get(address + "/models", headers={"Host": "page.example"})
    assert foreign.status_code == 403 and "page.example" in foreign.json()["error"]["message"]
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="other", prompt="x")
    processes[0].kill()
    processes[0].wait()
    assert len({cached(long[name] + name) for name in long}) >= 1  # both are answered by the one that is left
    processes[1].kill()
    processes[1].wait()
    with pytest.raises(openai.InternalServerError, match="None of the servers behind this router"):
        client.completions.create(model="tiny", prompt="x")


def test_a_known_prefix_is_not_worth_any_queue() -> None:
    router = Router(["http://one", "http://two"], most_behind=3)
    one, two = router.backends
    steps = router.prefixes.steps(b"a" * 3 * CHUNK)
    assert len(steps) == 3 and router.prefixes.steps(b"a" * (CHUNK - 1)) == []
    router.prefixes.note(steps, two)
    assert router.choose(steps[:1], ()) is two and router.choose((), ()) is one
    two.running = 2
    assert router.choose(steps, ()) is two
    two.running = 3
    assert router.choose(steps, ()) is one
    assert router.choose(steps, (one,)) is two and router.choose(steps, (one, two)) is None
    one.out_until = float("inf")
    assert router.choose((), ()) is two
    with pytest.raises(UsageError, match="at least one server"):
        Router([])


def test_a_key_of_a_prefix_says_what_stands_before() -> None:
    prefixes = Prefixes()
    first, second = prefixes.steps(b"a" * CHUNK + b"b" * CHUNK), prefixes.steps(b"c" * CHUNK + b"b" * CHUNK)
    assert first[1] != second[1]
    backend = Backend("http://one")
    prefixes.note(first, backend)
    assert prefixes.longest(second, [backend]) is None and prefixes.longest(first[:1], [backend]) is backend


def test_a_body_has_a_length_that_the_router_itself_keeps() -> None:
    app = create_router(["http://127.0.0.1:9"], ServeOptions(max_body_bytes=10))

    async def status(body: bytes) -> int:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return (await client.post("/v1/completions", content=body)).status_code

    assert asyncio.run(status(b"x" * 11)) == 413
    assert asyncio.run(status(b"x" * 10)) == 503  # nobody is behind it

"""The benchmark of a server, against real ones with a tiny model, and its clients against answers that are none."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from riallm.bench import serving, serving_soak
from riallm.bench.own_text import passages
from riallm.bench.serving_client import Answer, Endpoint, LostError, RefusedError, ask, connected, get, percentile
from riallm.bench.serving_infill import by_lines, cut, infill
from riallm.bench.serving_process import Server, started
from riallm.bench.serving_soak import Soak, malformed
from riallm.core.errors import ClientError, UsageError
from riallm.sandbox.watch import descendants
from riallm.testing.tiny import write_tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("models") / "tiny", context=512)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    """One for all tests that need no more than that; the last of them ends it."""
    with started(["--model", str(folder)]) as server:
        yield server


def small(folder: Path, *more: str) -> list[str]:
    words = ["--model", str(folder), "--requests", "3", "--tokens", "300", "--predict", "4"]
    return [*words, "--clients", "3", "--rounds", "1", "--answer", "8", *more]


def card(printed: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


def test_every_figure_is_measured(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_soak, "SLOW_PAUSE", 0.001)
    before = descendants(os.getpid())
    words = small(folder, "--soak", "2")
    assert serving.main(words) == 0
    told = card(capsys.readouterr().out)
    assert told["command"] == f"riallm bench serving {' '.join(words)}" and told["model"] == "tiny"
    # What was read is found again but for a page or two; a text that nobody has sent is not.
    assert told["infill_requests"] == 3 and 270 <= told["infill_prompt_tokens"] <= 330
    assert told["infill_reused_tokens"] + told["infill_read_tokens"] == told["infill_prompt_tokens"]
    assert told["infill_reused_tokens"] >= 64 and told["infill_cold_reused_tokens"] == 0
    # Hundreds of lines do not fit: the model reads as many as it holds, and answers all the same.
    assert told["infill_lines_requests"] == 3 and 450 < told["infill_lines_prompt_tokens"] <= 512 - 4
    assert 0 < told["infill_first_token_ms_p50"] <= told["infill_ms_p50"] <= told["infill_ms_p95"]
    assert told["clients_requests"] == 3 and told["clients_lost"] == 0 and 3 <= told["clients_tokens"] <= 24
    assert told["clients_tokens_a_second"] > 0 and told["clients_first_token_ms_p95"] > 0
    ends = ("answered", "vanished", "refused", "busy", "lost")
    assert told["soak_asked"] == sum(told[f"soak_{end}"] for end in ends) >= 3
    faults = ("lost", "differing", "running_left", "waiting_left", "pages_left", "unhealthy")
    assert [told[f"soak_{name}"] for name in faults] == [0] * len(faults)
    assert told["soak_resident_mib_start"] > 10 < told["soak_resident_mib_end"]
    assert set(descendants(os.getpid())) <= set(before)


def test_ctrl_c_ends_the_server_and_tells_what_there_is(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, asked = descendants(os.getpid()), 0

    async def interrupted(*given: Any, **more: Any) -> Answer | None:
        nonlocal asked
        asked += 1
        if asked == 25:  # sixteen of them come before the load
            os.kill(os.getpid(), signal.SIGINT)
        return await ask(*given, **more)

    monkeypatch.setattr(serving_soak, "ask", interrupted)
    assert serving.main(small(folder, "--soak", "600")) == 130
    told = capsys.readouterr()
    assert "stopped; the server has ended" in told.err
    assert card(told.out)["stopped"] and 6 <= card(told.out)["soak_asked"] < 100
    assert "soak_pages_left" not in card(told.out)
    assert set(descendants(os.getpid())) <= set(before)


def soak_of(server: Server, *, seconds: float = 0.5) -> Soak:
    texts = passages(100, seed=0)
    endpoint = Endpoint(path="/v1/completions")
    bodies = [endpoint.body(text, 6) for text in texts[:2]]
    made = Soak(endpoint.path, bodies, [endpoint.long_body(texts[2], 12)], seed=1)
    asyncio.run(made.run(server, clients=3, seconds=seconds, done=lambda seconds: None))
    return made


@pytest.mark.parametrize(
    ("way", "end"), [("whole", "answered"), ("vanish", "vanished"), ("slow", "slow"), ("malformed", "refused")]
)
def test_clients_of_each_kind_leave_nothing_behind(
    server: Server, monkeypatch: pytest.MonkeyPatch, way: str, end: str
) -> None:
    monkeypatch.setattr(serving_soak, "WAYS", {way: 1.0})
    made = soak_of(server)
    assert made.counts[end] >= 2 and made.faults() == [] and set(made.at_rest.values()) == {0.0}
    assert (made.counts["refused"] == made.counts["asked"]) == (way == "malformed")


def test_what_must_not_be_is_seen(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    num_right = serving.SOAK_PROMPTS + serving.LONG_PROMPTS
    asked = 0

    async def wrong(*given: Any, **more: Any) -> Answer | None:
        """The answers without load are right; then some are other ones, are lost, or are refused."""
        nonlocal asked
        asked += 1
        mine = asked
        answer = await ask(*given, **more)
        if mine <= num_right or answer is None:
            return answer
        if mine % 3 == 0:
            raise LostError("gone") if mine % 2 else RefusedError(404, "no")
        return replace(answer, text=answer.text + "x")

    monkeypatch.setattr(serving_soak, "ask", wrong)
    monkeypatch.setattr(serving_soak, "WAYS", {"whole": 1.0})
    monkeypatch.setattr(serving, "started", lambda words: nullcontext(server))
    assert serving.main(small(folder, "--soak", "2")) == 1
    printed = capsys.readouterr()
    told = card(printed.out)
    assert told["soak_lost"] >= 2 and told["soak_differing"] == told["soak_answered"] >= 2
    assert told["soak_asked"] == told["soak_lost"] + told["soak_answered"] and "stopped" not in told
    assert f"{told['soak_lost']} requests were neither answered nor refused" in printed.err
    assert f"{told['soak_differing']} answers differ from those without load" in printed.err
    assert "serving: lost: gone" in printed.err and "a body that is right was refused with 404: no" in printed.err


def test_each_malformed_body_is_refused_by_a_real_server(server: Server) -> None:
    good = {"prompt": "def", "max_tokens": 2, "temperature": 0.0}
    draw = random.Random(0)
    bodies = {repr(each): each for each in (malformed(draw, good) for _ in range(100))}
    assert len(bodies) == 7

    async def statuses() -> list[int]:
        found = []
        async with connected(server.address) as client:
            for body in bodies.values():
                with pytest.raises(RefusedError) as refusal:
                    await ask(client, "/v1/completions", body)
                found.append(refusal.value.status)
        return found

    assert sorted(asyncio.run(statuses())) == [400, 400, 400, 400, 400, 400, 404]


def test_a_server_that_dies_is_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last test with the module's server."""
    asked = 0

    async def killing(*given: Any, **more: Any) -> Answer | None:
        nonlocal asked
        asked += 1
        if asked == 6:
            server.process.kill()
        return await ask(*given, **more)

    monkeypatch.setattr(serving_soak, "ask", killing)
    with pytest.raises(ClientError, match="the server ended with -9 while it was being asked"):
        soak_of(server, seconds=60.0)
    assert server.resident_mib() is None


def test_no_server_is_no_measurement(capsys: pytest.CaptureFixture[str]) -> None:
    assert serving.main(["--model", "nothing"]) == 2
    printed = capsys.readouterr()
    assert "no server to measure" in printed.err and "no model 'nothing'" in printed.err and printed.out == ""
    assert serving.main(["--clients", "0"]) == 2
    assert "--clients, --rounds and --answer are from 1 on" in capsys.readouterr().err


def answering(data: bytes, use: Callable[[str], Any]) -> Any:
    """What `use` makes of an address where every request is answered with these bytes, and then cut off."""

    async def main() -> Any:
        over = asyncio.Event()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(data)
                await writer.drain()
                writer.close()
                await writer.wait_closed()
            over.set()

        listening = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with listening:
            host, port = listening.sockets[0].getsockname()
            try:
                return await use(f"http://{host}:{port}")
            finally:
                await over.wait()

    return asyncio.run(main())


def reading(**more: Any) -> Callable[[str], Any]:
    async def use(address: str) -> Answer | None:
        async with connected(address) as client:
            return await ask(client, "/v1/completions", {"prompt": "x"}, **more)

    return use


def stream(*events: str, status: str = "200 OK") -> bytes:
    return (
        f"HTTP/1.1 {status}\r\nConnection: close\r\n\r\n".encode() + "".join(f"data: {e}\n\n" for e in events).encode()
    )


ONE = '{"choices":[{"text":"a"}]}'
USAGE = '{"choices":[],"usage":{"completion_tokens":2}}'


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (stream(ONE, ONE), "the stream was cut after 2 events"),
        (stream(ONE, '{"error":{"message":"broken"}}', "[DONE]"), "the stream said .*broken"),
        (stream(status="500 Internal Server Error"), "500: "),
        (stream(status="302 Found"), "302: "),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n" + f"data: {ONE}\n\n".encode(), "RemoteProtocolError: "),
        (b"", "RemoteProtocolError: "),
    ],
)
def test_what_is_neither_answer_nor_refusal_is_lost(data: bytes, complaint: str) -> None:
    with pytest.raises(LostError, match=complaint):
        answering(data, reading())


def test_an_answer_is_known_by_its_end() -> None:
    whole = answering(stream('{"choices":[{"text":""}]}', ONE, ONE, USAGE, "[DONE]"), reading())
    assert whole.text == "aa" and whole.num_tokens == 2 and 0 < whole.first_seconds <= whole.seconds
    hole = answering(
        stream('{"content":"b","stop":false}', '{"content":"","stop":true,"tokens_predicted":7}'), reading()
    )
    assert hole.text == "b" and hole.num_tokens == 7
    chat = answering(stream('{"choices":[{"delta":{"content":"c"}}]}', USAGE, "[DONE]"), reading())
    assert chat.text == "c"
    assert answering(stream(ONE, ONE, "[DONE]"), reading(leave_after=1)) is None
    assert answering(stream(ONE, "[DONE]"), reading(leave_after=0)) is None
    with pytest.raises(RefusedError, match="429: "):
        answering(stream(status="429 Too Many Requests"), reading())

    async def health(address: str) -> str:
        async with connected(address) as client:
            return await get(client, "/health")

    with pytest.raises(LostError, match="/health: RemoteProtocolError"):
        answering(b"", health)


def test_a_hole_lies_in_real_text_and_fits() -> None:
    text = "".join(f"line_{number} = {number}\n" for number in range(100))
    hole = cut(text, 30)
    assert text == hole.before + hole.typed + hole.after[:0] + text[len(hole.before) + 30 :]
    assert text.endswith(hole.after) and hole.before.endswith("\n") and len(hole.typed) == 30
    assert 0.7 < len(hole.before) / len(text) < 0.8
    body = hole.body(12, 5, head="# one\n")
    assert body["prompt"] == hole.typed[:12].split("\n")[-1] and body["n_predict"] == 5
    assert body["input_prefix"] + body["prompt"] == "# one\n" + hole.before + hole.typed[:12]
    assert body["input_suffix"] == "\n# one\n" + hole.after and hole.body(0, 5)["input_suffix"] == hole.after
    text = "\n".join(f"line_{number} = {number}" for number in range(1000))
    lines = by_lines(text, 30)
    assert lines.before.count("\n") == 256 and lines.after.count("\n") == 65 and lines.after.startswith("\n")
    assert lines.before + lines.typed in text and lines.after in text and lines.before.endswith("\n")
    with pytest.raises(UsageError, match="the model holds 256 tokens, so 16 of an answer leave 208 around a hole"):
        asyncio.run(infill(None, context=256, requests=1, n_predict=16, tokens=209, done=print))  # type: ignore


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert [percentile(values, share) for share in (0.0, 0.5, 0.95, 1.0)] == [1.0, 50.0, 95.0, 100.0]
    assert percentile([7.0], 0.95) == 7.0 and percentile([1.0, 2.0], 0.95) == 2.0

"""What a recorder hears: how each request ended, and hidden states of exactly the tokens that stand."""

from __future__ import annotations

import itertools
import logging
import queue
from typing import Any

import pytest
import torch
from engines import (
    GREEDY,
    adapter_for,
    answer,
    engine,
    grown,
    ids_of,
    llama,
    packed,
    page_of,
    prompt,
    ria,
    two_files,
)

from riallm.core.errors import UsageError
from riallm.engine.request import Finished, Request, Sampling
from riallm.models.decoder import Decoder
from riallm.nn.adapter import Adapter
from riallm.nn.linear import PackedModule


@pytest.fixture(scope="module", params=[ria, llama, packed])
def model(request: pytest.FixtureRequest) -> Decoder:
    made: Decoder = request.param()
    return made


class Kept:
    """A recorder that hands over what it hears, or breaks."""

    def __init__(self, layers: tuple[int, ...] = (0, 1), *, breaks: bool = False) -> None:
        self.layers, self.breaks = layers, breaks
        self.heard: queue.SimpleQueue[Finished] = queue.SimpleQueue()

    def record(self, finished: Finished) -> None:
        self.heard.put(finished)
        if self.breaks:
            raise OSError("the disk is full")

    def next(self) -> Finished:
        return self.heard.get(timeout=60.0)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"step_tokens": 40},
    {"lookahead": 5},
    {"lookahead": 4, "small": True},
    {"pages": 7, "step_tokens": 50, "lookahead": 4},
]


def asked() -> list[Request]:
    """All lengths, one file and several, greedy and drawn, some that end by themselves, one that is only read."""
    rows = ((1, 12, False), (64, 0, False), (100, 40, False), (129, 30, True), (100, 60, False), (120, 40, False))
    return [
        Request(
            ids=prompt(length, length),
            max_tokens=max_tokens,
            meta=two_files(length) if files else None,
            sampling=Sampling(temperature=0.9 * (number % 2), seed=number),
            ends=(0, 1, 2) if files else (),
        )
        for number, (length, max_tokens, files) in enumerate(rows)
    ]


@pytest.mark.parametrize("options", OPTIONS)
def test_taps_are_those_of_one_pass_over_what_stands(model: Decoder, options: dict[str, Any]) -> None:
    """Whatever was cached, cut, drafted, or computed anew."""
    given = dict(options)
    if "pages" in given:
        given["kv_bytes"] = given.pop("pages") * page_of(model)
    if given.pop("small", False):
        given["small"] = model
    recorder = Kept()
    made = engine(model, recorder=recorder, **given)
    adapters = [None, adapter_for(model, 1, scale=0.5)]
    for _ in range(2):  # the second time finds the pages of the first
        wanted = {}
        for request, adapter in itertools.product(asked(), adapters):
            made.publish(adapter)
            wanted[id(request), adapter] = request, made.submit(request)
        said = {key: ids_of(answer(ticket)) for key, (_, ticket) in wanted.items()}
        for _ in range(len(wanted)):
            heard = recorder.next()
            adapter = None if heard.adapter is None else adapters[1]
            assert heard.adapter in (None, ("test", 1)) and list(heard.ids) == said.pop((id(heard.request), adapter))
            check_taps(model, heard, adapter)
    load = made.load()
    made.close()
    assert load.cached_tokens > 0 and (load.accepted_tokens > 0 or not options.get("lookahead"))
    assert load.preemptions > 0 or "pages" not in options


def check_taps(model: Decoder, heard: Finished, adapter: Adapter | None) -> None:
    request, ids = heard.request, heard.ids
    tokens = [*request.ids, *ids]
    with torch.inference_mode():
        meta = grown(request.meta, len(request.ids), len(tokens))
        out = model(torch.tensor([tokens]), meta, adapter=adapter, taps=(0, 1))
    # Where attention differs in its last bits, a packed matrix may round its input to the next of 127 steps.
    near = 3e-2 if any(isinstance(each, PackedModule) for each in model.modules()) else 1e-5
    drawn = max(1, len(ids)) + (heard.finish == "stop" and len(ids) > 0)
    assert set(heard.taps) == {0, 1} and heard.usage.completion_tokens == len(ids)
    for layer, states in heard.taps.items():
        first = len(request.ids) - 1
        assert states.dtype == model.dtype and states.device.type == "cpu" and not states.is_inference()
        largest = float(out.taps[layer].abs().max())
        torch.testing.assert_close(states, out.taps[layer][0, first : first + drawn], rtol=0.0, atol=near * largest)


def test_over_packed_weights_an_adapter_gives_the_same_bits_in_any_company() -> None:
    model = packed()
    request = Request(ids=prompt(100), max_tokens=24, sampling=GREEDY)
    found = []
    for options in ({}, {"step_tokens": 40, "lookahead": 4}, {"kv_bytes": 6 * page_of(model)}):
        recorder = Kept()
        made = engine(model, recorder=recorder, **options)
        made.publish(adapter_for(model, 1, scale=0.3))
        others = [Request(ids=prompt(90, seed), max_tokens=24, store=False) for seed in range(3 if options else 0)]
        tickets = [made.submit(each) for each in [*others, request]]
        for ticket in tickets:
            answer(ticket)
        found.append(recorder.next())
        assert made.load().preemptions > 0 or "kv_bytes" not in options
        made.close()
    for other in found[1:]:
        assert other.ids == found[0].ids
        assert all(torch.equal(other.taps[layer], found[0].taps[layer]) for layer in (0, 1))


def test_a_learner_may_take_gradients_through_its_taps(model: Decoder) -> None:
    recorder = Kept((1,))
    made = engine(model, recorder=recorder)
    answer(made.submit(Request(ids=prompt(30), max_tokens=5)))
    taps = recorder.next().taps[1]
    made.close()
    direction = torch.zeros(taps.shape[1], requires_grad=True)
    (taps @ direction).sum().backward()
    assert direction.grad is not None and torch.allclose(direction.grad, taps.sum(dim=0))


def test_a_recorder_that_breaks_does_no_harm(model: Decoder, caplog: pytest.LogCaptureFixture) -> None:
    request = Request(ids=prompt(30), max_tokens=8, sampling=GREEDY)
    quiet = engine(model, recorder=Kept())
    wanted = ids_of(answer(quiet.submit(request)))
    quiet.close()
    recorder = Kept(breaks=True)
    made = engine(model, recorder=recorder)
    with caplog.at_level(logging.ERROR, logger="riallm.engine"):
        for _ in range(2):
            pieces = answer(made.submit(request))
            assert ids_of(pieces) == wanted and pieces[-1].finish == "length"
            recorder.next()
        made.close()
    assert len(caplog.records) == 2 and "a recorder of tiny failed" in caplog.text and "disk is full" in caplog.text
    made.scheduler.book.check_integrity([])


def test_a_recorder_hears_how_requests_end_and_of_none_that_is_not_to_be_stored(
    model: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Kept()
    made = engine(model, recorder=recorder)
    answer(made.submit(Request(ids=prompt(30), max_tokens=4, store=False)))
    cancelled = made.submit(Request(ids=prompt(30), max_tokens=400))
    assert cancelled.next(60.0) is not None
    cancelled.cancel()
    told = 1 + len(ids_of(answer(cancelled)))
    heard = recorder.next()
    assert heard.request.store and heard.finish == "cancelled" and len(heard.ids) == told
    check_taps(model, heard, None)

    def broken(*arguments: Any) -> None:
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(made, "_computed", broken)
        answer(made.submit(Request(ids=prompt(20), max_tokens=5)))
    heard = recorder.next()
    assert heard.finish == "error" and heard.ids == () and heard.taps == {}
    made.close()
    assert recorder.heard.empty()


def test_a_recorder_asks_for_layers_that_there_are(model: Decoder) -> None:
    for layers in ((0, 2), (-1,), (1, 1)):
        with pytest.raises(UsageError, match=r"they are of 0 to 1, each once"):
            engine(model, recorder=Kept(layers))
    recorder = Kept(())
    made = engine(model, recorder=recorder)
    answer(made.submit(Request(ids=prompt(20), max_tokens=5)))
    assert recorder.next().taps == {}
    made.close()

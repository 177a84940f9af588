"""Adapters that are published while an engine answers: versions never mix, and nobody who began with one loses it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from engines import (
    GREEDY,
    adapter_for,
    answer,
    engine,
    greedy,
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
from riallm.engine.local import LocalEngine
from riallm.engine.request import Request, Sampling
from riallm.engine.scheduler import Part, by_version
from riallm.models.decoder import Decoder
from riallm.models.ria import RIA
from riallm.nn.adapter import Adapter, LowRank
from riallm.nn.meta import TokenMeta
from riallm.nn.paged import PAGE


@pytest.fixture(scope="module", params=[ria, llama])
def model(request: pytest.FixtureRequest) -> Decoder:
    made: Decoder = request.param()
    return made


@pytest.fixture
def resident_engine(model: Decoder) -> Iterator[LocalEngine]:
    made = engine(model)
    yield made
    made.close()
    made.scheduler.book.check_integrity([])


@pytest.mark.parametrize("options", [{}, {"step_tokens": 40, "lookahead": 4}])
def test_answers_are_those_of_one_pass_with_the_adapter(model: Decoder, options: dict[str, Any]) -> None:
    made = engine(model, **options)
    adapter = adapter_for(model, 1)
    made.publish(adapter)
    asked = [
        Request(ids=prompt(length, length), max_tokens=12, sampling=GREEDY, meta=two_files(length) if files else None)
        for length, files in ((1, False), (64, False), (130, True), (150, False))
    ]
    tickets = [made.submit(request) for request in asked]
    found = [ids_of(answer(ticket)) for ticket in tickets]
    assert found == [greedy(model, each.ids, 12, each.meta, adapter) for each in asked]
    assert found != [greedy(model, each.ids, 12, each.meta) for each in asked]
    made.close()
    made.scheduler.book.check_integrity([])


def test_packed_blocks_that_are_one_call_do_not_swallow_an_adapter() -> None:
    model = packed()
    adapter = adapter_for(model, 1, scale=0.3)
    request = Request(ids=prompt(100), max_tokens=1, sampling=GREEDY, logprobs=0)
    made = engine(model)
    for each in (None, adapter):
        made.publish(each)
        (token,) = [token for piece in answer(made.submit(request)) for token in piece.tokens]
        with torch.inference_mode():
            out = model(torch.tensor([request.ids]), TokenMeta.plain(1, 100), adapter=each)
            wanted = model.logits(out.hidden[0, -1]).log_softmax(dim=-1)
        assert token.logprob == pytest.approx(float(wanted[token.id]), abs=0.05)
    made.close()


def test_a_request_keeps_the_version_that_it_began_with(resident_engine: LocalEngine, model: Decoder) -> None:
    first, second = adapter_for(model, 1), adapter_for(model, 2)
    resident_engine.publish(first)
    request = Request(ids=prompt(80), max_tokens=40, sampling=GREEDY)
    slow = threading.Event()
    with resident_engine._lock:
        resident_engine._jobs.append(lambda: slow.wait(60.0) and None)
    begun = resident_engine.submit(request)
    resident_engine.publish(second)
    after = resident_engine.submit(request)
    resident_engine.publish(None)
    without = resident_engine.submit(request)
    slow.set()
    for ticket, adapter in ((begun, first), (after, second), (without, None)):
        assert ids_of(answer(ticket)) == greedy(model, request.ids, 40, adapter=adapter)


def test_a_version_is_kept_while_it_answers(resident_engine: LocalEngine, model: Decoder) -> None:
    first, second = adapter_for(model, 1), adapter_for(model, 2)
    resident_engine.publish(first)
    request = Request(ids=prompt(80), max_tokens=300, sampling=GREEDY)
    running = resident_engine.submit(request)
    piece = running.next(60.0)
    assert piece is not None and piece.finish is None
    resident_engine.publish(second)
    short = replace(request, max_tokens=20)
    assert ids_of(answer(resident_engine.submit(short))) == greedy(model, request.ids, 20, adapter=second)
    ids = ids_of([piece, *answer(running)])
    with torch.inference_mode():
        whole = torch.tensor([[*request.ids, *ids]])
        out = model(whole, grown(None, 80, 380), adapter=first)
        assert model.logits(out.hidden[0, 79:-1]).argmax(dim=-1).tolist() == ids


def test_versions_come_back_from_waiting_for_pages(model: Decoder) -> None:
    tight = engine(model, kv_bytes=7 * page_of(model), lookahead=4)
    adapters = [None, adapter_for(model, 1), adapter_for(model, 2), None]
    tickets = []
    for seed, adapter in enumerate(adapters):
        tight.publish(adapter)
        tickets.append(tight.submit(Request(ids=prompt(120, seed), max_tokens=60, sampling=GREEDY)))
    for seed, (ticket, adapter) in enumerate(zip(tickets, adapters, strict=True)):
        assert ids_of(answer(ticket)) == greedy(model, prompt(120, seed), 60, adapter=adapter)
    assert tight.load().preemptions > 0
    tight.close()
    tight.scheduler.book.check_integrity([])


def test_no_page_is_shared_between_versions(resident_engine: LocalEngine, model: Decoder) -> None:
    request = Request(ids=prompt(200), max_tokens=12, sampling=GREEDY)
    read = 200 // PAGE * PAGE

    def cached(adapter: Adapter | None) -> int:
        resident_engine.publish(adapter)
        pieces = answer(resident_engine.submit(request))
        assert ids_of(pieces) == greedy(model, request.ids, 12, adapter=adapter)
        assert pieces[-1].usage is not None
        return pieces[-1].usage.cached_tokens

    first = adapter_for(model, 1)
    same_name = replace(first, tensors=adapter_for(model, 7).tensors)
    assert [cached(each) for each in (None, first, adapter_for(model, 2), same_name)] == [0, 0, 0, 0]
    assert [cached(each) for each in (None, first, same_name)] == [read, read, read]  # each finds its own again


def test_what_was_published_stays_as_it_was(resident_engine: LocalEngine, model: Decoder) -> None:
    """Tensors that are trained on, and publications that are refused, change nothing."""
    adapter = adapter_for(model, 1)
    request = Request(ids=prompt(90), max_tokens=12, sampling=GREEDY)
    wanted = greedy(model, request.ids, 12, adapter=adapter)
    resident_engine.publish(adapter)
    for low in adapter.tensors.values():
        low.up.mul_(3.0)
    wrong = LowRank(down=torch.ones(2, 7), up=torch.ones(7, 2))
    for hook, match in (("layers.0.mlp.up_proj", "is a map of"), ("layers.9.mlp.up_proj", "has no hook")):
        with pytest.raises(UsageError, match=match):
            resident_engine.publish(replace(adapter, tensors={**adapter.tensors, hook: wrong}))
    assert ids_of(answer(resident_engine.submit(request))) == wanted


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_small_model_drafts_for_an_adapter_and_changes_nothing(model: Decoder, temperature: float) -> None:
    sampling = Sampling(temperature=temperature, seed=1)
    found = []
    for small in (None, model, llama() if isinstance(model, RIA) else ria()):
        made = engine(model, small=small, lookahead=0 if small is None else 4)
        made.publish(adapter_for(model, 1, scale=0.2))
        tickets = [made.submit(Request(ids=prompt(60, at), max_tokens=40, sampling=sampling)) for at in range(3)]
        found.append([ids_of(answer(ticket)) for ticket in tickets])
        assert small is None or made.load().drafted_tokens > 0
        made.close()
    assert found[0] == found[1] == found[2]


def test_a_pass_that_fails_takes_no_other_version_with_it(
    resident_engine: LocalEngine, model: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = resident_engine._computed

    def broken(parts: list[Part]) -> Any:
        assert len({part.running.version.identity for part in parts}) == 1
        if parts[0].running.version.adapter is not None:
            raise MemoryError("no room")
        return computed(parts)

    monkeypatch.setattr(resident_engine, "_computed", broken)
    request = Request(ids=prompt(20), max_tokens=30, sampling=GREEDY)
    slow = threading.Event()
    with resident_engine._lock:
        resident_engine._jobs.append(lambda: slow.wait(60.0) and None)
    tickets = [resident_engine.submit(request)]
    resident_engine.publish(adapter_for(model, 1))
    tickets.append(resident_engine.submit(request))
    slow.set()
    fine, failed = (answer(ticket) for ticket in tickets)
    assert ids_of(fine) == greedy(model, request.ids, 30)
    assert failed[-1].error == "MemoryError: no room"


def test_every_version_has_its_pass_in_every_step(model: Decoder) -> None:
    made = engine(model)
    made.close()  # its thread does not step
    for version in (1, 2):
        made._closing = None
        made.publish(adapter_for(model, version))
        for _ in range(2):
            made.submit(Request(ids=prompt(20), max_tokens=3))
    for running in made._arrived:
        made.scheduler.add(running)
    parts = made.scheduler.step()
    groups = by_version(parts)
    assert [len(group) for group in groups] == [2, 2] and list(itertools.chain(*groups)) == parts


def test_an_embedding_stays_what_it_was(resident_engine: LocalEngine, model: Decoder) -> None:
    before = resident_engine.embed([list(prompt(20))])
    resident_engine.publish(adapter_for(model, 1))
    assert resident_engine.embed([list(prompt(20))]) == before

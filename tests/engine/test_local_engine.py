"""The engine against one pass over the whole text: paged, batched, cached, chunked, drafted, preempted, all alike."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from engines import GREEDY, VOCAB, answer, engine, greedy, ids_of, llama, prompt, ria, two_files

from riallm.core.errors import BudgetError, UsageError
from riallm.engine.drafting import Pace, Places
from riallm.engine.local import LocalEngine
from riallm.engine.request import Request, Sampling
from riallm.engine.sequence import Running
from riallm.models.decoder import Decoder
from riallm.models.llama import Llama, LlamaConfig
from riallm.models.ria import RIA
from riallm.nn.meta import TokenMeta
from riallm.nn.paged import PAGE


@pytest.fixture(scope="module", params=[ria, llama])
def model(request: pytest.FixtureRequest) -> Decoder:
    made: Decoder = request.param()
    return made


@pytest.fixture
def resident(model: Decoder) -> Iterator[LocalEngine]:
    made = engine(model)
    yield made
    made.close()
    made.scheduler.book.check_integrity([])


@pytest.mark.parametrize("options", [{}, {"step_tokens": 40}, {"lookahead": 4}, {"step_tokens": 40, "lookahead": 4}])
def test_answers_are_those_of_one_pass(model: Decoder, options: dict[str, Any]) -> None:
    made = engine(model, **options)
    asked = [
        Request(ids=prompt(length, length), max_tokens=12, sampling=GREEDY, meta=two_files(length) if files else None)
        for length, files in ((1, False), (63, False), (64, False), (65, True), (150, True), (150, False), (200, True))
    ]
    tickets = [made.submit(request) for request in asked]
    for request, ticket in zip(asked, tickets, strict=True):
        assert ids_of(answer(ticket)) == greedy(model, request.ids, 12, request.meta)
    made.close()
    made.scheduler.book.check_integrity([])
    if options.get("lookahead"):
        assert made.load().accepted_tokens > 0


def test_a_prefix_is_read_once(resident: LocalEngine, model: Decoder) -> None:
    first, second = prompt(200), (*prompt(200), 3, 1, 4)
    answer(resident.submit(Request(ids=first, max_tokens=3, sampling=GREEDY)))
    again = answer(resident.submit(Request(ids=second, max_tokens=12, sampling=GREEDY)))
    usage = again[-1].usage
    assert usage is not None and usage.cached_tokens == 200 // PAGE * PAGE and usage.prompt_tokens == 203
    assert ids_of(again) == greedy(model, second, 12)


def test_a_prefix_in_another_file_is_another_prefix(resident: LocalEngine) -> None:
    ids = prompt(200)
    answer(resident.submit(Request(ids=ids, max_tokens=1, sampling=GREEDY)))
    apart = answer(resident.submit(Request(ids=ids, max_tokens=1, sampling=GREEDY, meta=two_files(200))))
    assert apart[-1].usage is not None and apart[-1].usage.cached_tokens == PAGE  # the first page is one file in both


def test_whoever_came_last_waits_for_pages(model: Decoder) -> None:
    roomy = engine(model)
    page = roomy.store.num_bytes // roomy.store.num_pages
    roomy.close()
    tight = engine(model, kv_bytes=7 * page)
    asked = [Request(ids=prompt(120, seed), max_tokens=60, sampling=GREEDY) for seed in range(4)]
    tickets = [tight.submit(request) for request in asked]
    for request, ticket in zip(asked, tickets, strict=True):
        assert ids_of(answer(ticket)) == greedy(model, request.ids, 60)
    assert tight.load().preemptions > 0
    tight.close()
    tight.scheduler.book.check_integrity([])


def test_a_seed_tells_all_whatever_the_company(resident: LocalEngine) -> None:
    request = Request(ids=prompt(70), max_tokens=20, sampling=Sampling(temperature=1.0, top_p=0.9, seed=7))
    alone = ids_of(answer(resident.submit(request)))
    others = [Request(ids=prompt(30, seed), max_tokens=30, sampling=Sampling(seed=seed)) for seed in range(5)]
    tickets = [resident.submit(each) for each in [*others, request]]
    assert ids_of(answer(tickets[-1])) == alone
    for ticket in tickets[:-1]:
        answer(ticket)
    changed = replace(request, sampling=replace(request.sampling, seed=8))
    assert ids_of(answer(resident.submit(changed))) != alone


def test_drafts_change_nothing_but_the_time(model: Decoder) -> None:
    sampling = Sampling(temperature=0.7, seed=3, repetition_penalty=1.1, frequency_penalty=0.1)
    request = Request(ids=prompt(140), max_tokens=80, sampling=sampling, logprobs=2)
    found = []
    for num in (0, 6):
        made = engine(model, lookahead=num)
        found.append(answer(made.submit(request)))
        made.close()
    without, drafted = found
    assert ids_of(without) == ids_of(drafted)
    assert "".join(piece.text for piece in without) == "".join(piece.text for piece in drafted)
    assert drafted[-1].usage is not None and drafted[-1].usage.drafted_tokens > 0


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_small_model_drafts_and_changes_nothing(model: Decoder, temperature: float) -> None:
    """The best of all drafters is the model itself, the worst one that knows nothing; the answer is the same."""
    asked = [
        Request(ids=prompt(60, seed), max_tokens=40, sampling=Sampling(temperature=temperature, seed=seed))
        for seed in range(3)
    ]
    found = []
    other = llama() if isinstance(model, RIA) else ria()
    for small in (None, model, other):
        made = engine(model, small=small, lookahead=0 if small is None else 4)
        tickets = [made.submit(request) for request in asked]
        found.append([ids_of(answer(ticket)) for ticket in tickets])
        load = made.load()
        made.close()
        if small is model and temperature == 0.0:
            assert load.accepted_tokens > 30
    assert found[0] == found[1] == found[2]


def test_a_small_model_that_is_sure_drafts_far_ahead() -> None:
    model = llama()
    assert model.lm_head is not None
    with torch.no_grad():
        model.lm_head.weight.mul_(30.0)
    made = engine(model, small=model, lookahead=8)
    request = Request(ids=prompt(60), max_tokens=60, sampling=GREEDY, meta=two_files(60))
    pieces = answer(made.submit(request))
    made.close()
    assert ids_of(pieces) == greedy(model, request.ids, 60, request.meta)
    assert len(pieces) < 20 and made.load().accepted_tokens > 40


def test_a_small_model_of_other_tokens_is_refused(model: Decoder) -> None:
    tiny = LlamaConfig(
        vocab_size=VOCAB + 1,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=64,
    )
    with pytest.raises(UsageError, match="drafting model has 62 tokens, the model 61"):
        engine(model, small=Llama(tiny), lookahead=2)


def test_a_look_up_takes_the_place_that_is_most_alike() -> None:
    ids = [1, 2, 3, 4, 9, 2, 3, 5, 9, 2, 3, 6, 1, 2, 3]
    grown = Places()
    for size in range(1, len(ids) + 1):
        found = grown.following(ids[:size], 2)
    assert found == [4, 9] == Places().following(ids, 2)  # 1 2 3 was there once; the others are 9 2 3
    assert Places().following([7, 8, 1, 7, 8, 2, 7, 8], 1) == [2]  # of equals the latest
    assert Places().following([5, 5, 5], 3) == [5] and Places().following([1, 2, 3], 3) == []


def test_the_pace_follows_what_stands() -> None:
    pace = Pace(4)
    for _ in range(6):
        pace.told(pace.now, pace.now)
    assert pace.now == Pace.MOST
    for _ in range(3):
        pace.told(pace.now, 1)
    assert pace.now == Pace.MOST - 3
    for _ in range(4):
        pace.told(pace.now, 0)
    assert pace.now == 0  # nothing stood four times: it rests
    for _ in range(Pace.REST):
        pace.told(0, 0)
    assert pace.now == Pace.FEWEST


def test_an_answer_ends_where_it_is_told_to(resident: LocalEngine) -> None:
    request = Request(ids=prompt(50), max_tokens=30, sampling=Sampling(temperature=2.0, seed=5))
    whole = ids_of(answer(resident.submit(request)))
    text = "".join(chr(40 + index) for index in whole)
    at = next(at for at, index in enumerate(whole) if at > 3 and index not in whole[:at])
    ended = answer(resident.submit(replace(request, ends=(whole[at],))))
    assert ids_of(ended) == whole[:at] and ended[-1].finish == "stop"
    stop = text[at - 1 : at + 1]
    stopped = answer(resident.submit(replace(request, stop=("\u00ff", stop))))
    assert "".join(piece.text for piece in stopped) == text[: text.index(stop)] and stopped[-1].finish == "stop"
    cut = answer(resident.submit(replace(request, max_tokens=5)))
    assert ids_of(cut) == whole[:5] and cut[-1].finish == "length"
    read = answer(resident.submit(replace(request, max_tokens=0)))
    assert not ids_of(read) and read[-1].finish == "length"


def test_logprobs_are_the_model_s_own(resident: LocalEngine, model: Decoder) -> None:
    ids = prompt(40)
    (token, *_) = [
        each
        for piece in answer(
            resident.submit(Request(ids=ids, max_tokens=1, sampling=Sampling(temperature=3.0, seed=1), logprobs=3))
        )
        for each in piece.tokens
    ]
    with torch.inference_mode():
        wanted = model.logits(model(torch.tensor([ids]), TokenMeta.plain(1, 40)).hidden[0, -1]).log_softmax(-1)
    assert token.logprob == pytest.approx(float(wanted[token.id]), abs=1e-4)
    best = wanted.topk(3)
    assert [index for index, _ in token.top] == best.indices.tolist()
    assert [value for _, value in token.top] == pytest.approx(best.values.tolist(), abs=1e-4)


def test_who_leaves_frees_the_pages(resident: LocalEngine) -> None:
    tickets = [resident.submit(Request(ids=prompt(60, seed), max_tokens=400)) for seed in range(6)]
    assert tickets[0].next(60.0) is not None
    for ticket in tickets:
        ticket.cancel()
    assert [answer(ticket)[-1].finish for ticket in tickets] == ["cancelled"] * 6
    assert resident.load().running == resident.load().waiting == 0


def test_an_error_in_a_pass_reaches_those_who_asked(resident: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> None:
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(resident, "_computed", broken)
        (last,) = answer(resident.submit(Request(ids=prompt(20), max_tokens=5)))
        assert last.finish == "error" and last.error == "MemoryError: no room"
    assert answer(resident.submit(Request(ids=prompt(20), max_tokens=5)))[-1].finish == "length"


def test_an_error_in_sharing_out_a_step_leaves_nobody_waiting(
    resident: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("no step")

    with monkeypatch.context() as patch:
        patch.setattr(resident.scheduler, "step", broken)
        tickets = [resident.submit(Request(ids=prompt(20, seed), max_tokens=4)) for seed in range(2)]
        for ticket in tickets:
            (last,) = answer(ticket)
            assert last.finish == "error" and last.error == "RuntimeError: no step"
    assert resident.load().running == resident.load().waiting == 0
    assert answer(resident.submit(Request(ids=prompt(20), max_tokens=5)))[-1].finish == "length"


def test_who_fails_leaves_no_page_with_drafts_that_fell(model: Decoder) -> None:
    """The last place of the page held a draft when decoding the token that was drawn instead failed."""
    ids = prompt(PAGE - 2)
    first, second = greedy(model, ids, 2)
    made = engine(model, lookahead=4)
    decode = made._decode

    def fails(tokens: Sequence[int]) -> bytes:
        if len(told) == 1:
            raise RuntimeError("no such token")
        told.extend(tokens)
        return decode(tokens)

    class Wrong:
        def propose(self, running: Running, num: int) -> list[int]:
            return [(second + 1) % VOCAB] * num

        def forget(self, running: Running) -> None:
            pass

    told: list[int] = []
    made._decode, made.scheduler.drafter = fails, Wrong()
    (*_, last) = answer(made.submit(Request(ids=ids, max_tokens=9, sampling=GREEDY)))
    assert last.finish == "error" and told == [first]
    made._decode, made.scheduler.drafter = decode, None
    again = (*ids, first, second, 1, 2, 3)
    pieces = answer(made.submit(Request(ids=again, max_tokens=9, sampling=GREEDY)))
    assert ids_of(pieces) == greedy(model, again, 9)
    assert pieces[-1].usage is not None and pieces[-1].usage.cached_tokens == 0
    made.close()
    made.scheduler.book.check_integrity([])


def test_what_cannot_fit_is_refused_with_figures(resident: LocalEngine) -> None:
    with pytest.raises(UsageError, match=r"prompt has 500 tokens and the answer may have 20: 520 of 512 .* by 8"):
        resident.submit(Request(ids=prompt(500), max_tokens=20))
    with pytest.raises(UsageError, match="token 61 is not in the vocabulary of tiny, which has 61"):
        resident.submit(Request(ids=(61,), max_tokens=1))


def test_a_full_queue_and_a_closed_engine_say_so(model: Decoder) -> None:
    made = engine(model, max_waiting=2, max_running=1)
    held = threading.Event()
    with made._lock:
        made._jobs.append(lambda: held.wait(60.0) and None)
        made._lock.notify()
    tickets = []
    with pytest.raises(BudgetError, match="2 requests wait for tiny already"):
        for _ in range(9):
            tickets.append(made.submit(Request(ids=(1,), max_tokens=1)))
    held.set()
    assert [answer(ticket)[-1].finish for ticket in tickets] == ["length"] * len(tickets)
    made.close()
    with pytest.raises(BudgetError, match="is closing"):
        made.submit(Request(ids=(1,), max_tokens=1))
    with pytest.raises(BudgetError, match="is closing"):
        made.embed([[1]])


def test_an_embedding_is_the_mean_of_what_is_seen(resident: LocalEngine, model: Decoder) -> None:
    (found,) = resident.embed([list(prompt(20))])
    with torch.inference_mode():
        mean = model(torch.tensor([prompt(20)]), TokenMeta.plain(1, 20)).hidden[0].mean(dim=0)
    assert found == pytest.approx((mean / mean.norm()).tolist(), abs=1e-5)
    with pytest.raises(UsageError, match="1 to 512 tokens, got 0"):
        resident.embed([[]])


def test_keys_and_values_in_eight_bits_are_near(model: Decoder) -> None:
    whole, small = engine(model), engine(model, int8_kv=True)
    assert small.store.num_pages > 1.5 * whole.store.num_pages
    request = Request(ids=prompt(100), max_tokens=1, sampling=GREEDY, logprobs=5)
    (exact, *_), (near, *_) = (
        [token for piece in answer(made.submit(request)) for token in piece.tokens] for made in (whole, small)
    )
    assert near.logprob == pytest.approx(exact.logprob, abs=0.2)
    whole.close()
    small.close()

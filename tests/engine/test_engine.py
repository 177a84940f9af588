"""Shared prefixes, scores, samples and beams against the plain way: the whole text through the model at once."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from riallm.core.errors import UsageError
from riallm.engine import prefix as prefixes
from riallm.engine.prefix import branched, choose, read, score
from riallm.engine.sampler import Start, beam, narrowed, sample
from riallm.models.ria import RIA
from riallm.models.zoo import nano
from riallm.nn.meta import Relation, TokenMeta

VOCAB = 11


@pytest.fixture(scope="module")
def model() -> RIA:
    made = RIA(dataclasses.replace(nano(hidden=128, layers=2, inner=128, vocab=VOCAB, context=64), zero_output=False))
    made.initialise(seed=1)
    draws = torch.Generator().manual_seed(2)
    with torch.no_grad():
        made.embed_tokens.weight.mul_(6.0)  # so that the next token is not just anything
        for block in made.layers:
            block.self_attn.alpha.normal_(std=3.0, generator=draws)  # type: ignore[union-attr, operator]
    return made.eval()


def plain(model: RIA, before: list[int], after: list[int], meta: TokenMeta | None = None) -> float:
    """log P(after | before) in one pass over both."""
    ids = torch.tensor([before + after])
    with torch.inference_mode():
        logits = model.logits(model(ids, meta or TokenMeta.plain(1, ids.shape[1])).hidden[0])
    found = F.log_softmax(logits, dim=-1)[len(before) - 1 : -1]
    return float(found.gather(1, ids[0, len(before) :, None]).sum())


CONTINUATIONS = [[3], [3, 4, 5], [], [10, 0, 1, 2, 3, 4, 5], [7, 7], [3, 4, 6]]


@pytest.mark.parametrize("row_tokens", [1, 8, 4096])
def test_scores_are_those_of_one_pass(model: RIA, monkeypatch: pytest.MonkeyPatch, row_tokens: int) -> None:
    monkeypatch.setattr(prefixes, "ROW_TOKENS", row_tokens)
    before = [1, 2, 3, 4, 5, 6]
    wanted = [plain(model, before, after) if after else 0.0 for after in CONTINUATIONS]
    assert score(model, read(model, before), CONTINUATIONS) == pytest.approx(wanted, abs=1e-4)


OPTIONS = [[3, 9], [3, 4, 5, 9], [10, 0, 1, 2, 3, 4, 5, 9], [7, 7, 9], [3, 4, 6, 9], [10, 0, 1, 2, 8, 9], [10, 9]]


@pytest.mark.parametrize("row_tokens", [1, 8, 4096])
def test_a_choice_counts_only_what_leads_to_an_option(
    model: RIA, monkeypatch: pytest.MonkeyPatch, row_tokens: int
) -> None:
    monkeypatch.setattr(prefixes, "ROW_TOKENS", row_tokens)
    before = [1, 2, 3, 4, 5, 6]

    def among(option: list[int]) -> float:
        total = 0.0
        for at, token in enumerate(option):
            nexts = {other[at] for other in OPTIONS if other[:at] == option[:at]}
            shares = {each: math.exp(plain(model, before + option[:at], [each])) for each in nexts}
            total += math.log(shares[token] / sum(shares.values()))
        return total

    found = choose(model, read(model, before), OPTIONS)
    assert found == pytest.approx([among(option) for option in OPTIONS], abs=1e-4)
    assert sum(map(math.exp, found)) == pytest.approx(1.0, abs=1e-4)
    assert choose(model, read(model, before), [[4, 4, 4]]) == [0.0] and choose(model, read(model, before), []) == []


@pytest.mark.parametrize("options", [[[3], [3, 4]], [[3, 4], [3, 4]]])
def test_options_that_cannot_be_told_apart(model: RIA, options: list[list[int]]) -> None:
    with pytest.raises(UsageError, match="begin another"):
        choose(model, read(model, [1]), options)


def test_continuations_belong_to_the_last_file(model: RIA) -> None:
    before, after = [1, 2, 3, 4, 5, 6], [7, 8, 9]
    files = torch.tensor([[0, 0, 0, 1, 1, 1]])
    relations = torch.tensor([[[Relation.SAME, Relation.NONE], [Relation.IMPORT, Relation.SAME]]], dtype=torch.int64)
    meta = dataclasses.replace(TokenMeta.plain(1, 6), files=files, relations=relations)
    whole = dataclasses.replace(
        TokenMeta.plain(1, 9), files=torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1]]), relations=relations
    )
    found = score(model, read(model, before, meta), [after])
    assert found == pytest.approx([plain(model, before, after, whole)], abs=1e-4)
    assert found != pytest.approx([plain(model, before, after)], abs=1e-2)


def test_a_greedy_sample_is_the_likeliest_token_each_time(model: RIA) -> None:
    before: list[int] = [1, 2, 3]
    (found,) = sample(model, read(model, before), num=1, max_tokens=6, ends=(), temperature=0.0)
    ids = list(before)
    for _ in range(6):
        ids.append(max(range(VOCAB), key=lambda token: plain(model, ids, [token])))
    assert list(found.ids) == ids[3:] and not found.finished
    assert found.log_prob == pytest.approx(plain(model, before, list(found.ids)), abs=1e-4)


def test_samples_follow_the_distribution_and_the_seed(model: RIA) -> None:
    start = read(model, [1, 2, 3])
    drawn = sample(model, start, num=4000, max_tokens=1, ends=(0,), seed=5)
    shares = torch.bincount(torch.tensor([row.ids[0] if row.ids else 0 for row in drawn]), minlength=VOCAB) / 4000
    torch.testing.assert_close(shares, start.next_log_probs.exp(), atol=0.03, rtol=0.0)
    assert all(row.finished == (row.ids == ()) for row in drawn)
    assert sample(model, start, num=9, max_tokens=5, ends=(0,), seed=6) == sample(
        model, start, num=9, max_tokens=5, ends=(0,), seed=6
    )
    assert drawn[:9] != sample(model, start, num=9, max_tokens=1, ends=(0,), seed=7)


def test_a_row_that_ended_takes_no_more(model: RIA) -> None:
    ends = tuple(range(0, VOCAB, 2))
    for row in sample(model, read(model, [1, 2, 3]), num=40, max_tokens=5, ends=ends, seed=1):
        assert not set(row.ids) & set(ends)
        if not row.finished:
            assert len(row.ids) == 5
            assert row.log_prob == pytest.approx(plain(model, [1, 2, 3], list(row.ids)), abs=1e-4)


def test_top_p_keeps_the_smallest_likely_set() -> None:
    log_probs = torch.tensor([[0.1, 0.5, 0.15, 0.25]]).log()
    torch.testing.assert_close(narrowed(log_probs, 1.0, 0.7), torch.tensor([[0.0, 2 / 3, 0.0, 1 / 3]]))
    torch.testing.assert_close(narrowed(log_probs, 1.0, 0.01), torch.tensor([[0.0, 1.0, 0.0, 0.0]]))
    assert float(narrowed(log_probs, 0.5, 1.0)[0, 1]) > 0.5


def test_a_wide_beam_finds_the_likeliest_of_all(model: RIA) -> None:
    """Every continuation of at most three tokens, by hand, against a beam that is wide enough to miss none."""
    start, before = read(model, [1, 2, 3]), [1, 2, 3]
    rest = [token for token in range(VOCAB) if token != 0]
    every = {
        ids: plain(model, before, [*ids, 0]) for length in range(3) for ids in itertools.product(rest, repeat=length)
    }
    best = sorted(every, key=lambda ids: -every[ids])[:5]
    found = beam(model, start, num=150, max_tokens=3, ends=(0,))
    finished = [row for row in found if row.finished][:5]
    assert [row.ids for row in finished] == best
    assert [row.log_prob for row in finished] == pytest.approx([every[ids] for ids in best], abs=1e-3)


def test_a_beam_may_begin_with_several_texts_of_any_length(model: RIA) -> None:
    """What stands before a start is padding that nothing sees: each row is as if it were read alone."""
    before = [1, 2, 3]
    starts = [Start(ids=(4,), log_prob=-1.0), Start(ids=(5, 6, 7, 8), log_prob=-0.5), Start(ids=(9, 4), log_prob=-2.0)]
    _, log_probs = branched(model, read(model, before), [start.ids for start in starts])
    alone = [read(model, [*before, *start.ids]).next_log_probs for start in starts]
    torch.testing.assert_close(log_probs, torch.stack(alone), atol=1e-4, rtol=0)
    rest = [token for token in range(VOCAB) if token != 0]
    every = {
        (at, ids): start.log_prob + plain(model, [*before, *start.ids], [*ids, 0])
        for at, start in enumerate(starts)
        for length in range(3)
        for ids in itertools.product(rest, repeat=length)
    }
    best = sorted(every, key=lambda row: -every[row])[:6]
    found = beam(model, read(model, before), num=400, max_tokens=3, ends=(0,), starts=starts)
    finished = [row for row in found if row.finished][:6]
    assert [(row.start, row.ids) for row in finished] == best
    assert [row.log_prob for row in finished] == pytest.approx([every[row] for row in best], abs=1e-3)


def test_what_cannot_be_done_is_refused(model: RIA) -> None:
    with pytest.raises(UsageError, match="at least one token"):
        read(model, [])
    with pytest.raises(UsageError, match="temperature is -1"):
        sample(model, read(model, [1]), num=1, max_tokens=1, ends=(), temperature=-1)
    with pytest.raises(UsageError, match="top_p is 0"):
        sample(model, read(model, [1]), num=1, max_tokens=1, ends=(), top_p=0.0)

"""The benchmark of drafts: its counts on a tiny model, what it says when drafts change an answer, and equality."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from riallm.bench import drafting
from riallm.bench.own_text import passages, whole
from riallm.core.errors import BudgetError
from riallm.engine.request import Usage
from riallm.engine.sequence import Rows, Running
from riallm.testing.tiny import write_tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("models") / "tiny", context=256)


def card(printed: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


def small(folder: Path) -> list[str]:
    return ["--model", str(folder), "--prompts", "4", "--random", "2", "--answer", "24"]


def test_what_drafts_came_to_is_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert drafting.main(small(folder)) == 0
    told = card(capsys.readouterr().out)
    assert told["command"] == f"riallm bench drafting {' '.join(small(folder))}"
    assert told["prompts_that_drafted"] == 4 <= told["prompts"] and told["prompts_that_differ"] == 0
    assert told["prompt_tokens_mean"] == 256 - 24 and told["lookahead"] == 4
    assert told["acceptance_percent"] == 100 * told["accepted_tokens"] / told["drafted_tokens"]
    assert told["drafted_tokens"] >= 4 and told["speedup_median_low"] <= told["speedup_median"]
    assert told["random_prompts_where_nothing_stood"] == 2 <= told["random_prompts"]
    assert told["random_prompts_where_nothing_stood_time_ratio"] > 0


def test_a_draft_that_changes_an_answer_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here a token is one higher wherever something was drafted behind it."""
    take = Running.take

    def wrong(self: Running, rows: Rows, drafts: list[int]) -> int:
        return take(self, replace(rows, logits=rows.logits.roll(1, dims=-1)) if drafts else rows, drafts)

    monkeypatch.setattr(Running, "take", wrong)
    assert drafting.main(small(folder)) == 1
    printed = capsys.readouterr()
    assert card(printed.out)["prompts_that_differ"] >= 4 and "drafts changed an answer" in printed.err


def pair(drafted: int, accepted: int, seconds: float) -> drafting.Pair:
    plain = Usage(prompt_tokens=8, completion_tokens=11, completion_seconds=2.0)
    other = Usage(
        prompt_tokens=8,
        completion_tokens=11,
        drafted_tokens=drafted,
        accepted_tokens=accepted,
        completion_seconds=seconds,
    )
    return drafting.Pair(same=True, plain=plain, drafted=other)


def test_gains_are_of_those_that_drafted_and_costs_of_those_where_nothing_stood() -> None:
    told = drafting.gains([pair(0, 0, 8.0), pair(4, 3, 1.0), pair(4, 2, 0.5), pair(2, 0, 2.5)])
    assert told["prompts"] == 4 and told["prompts_that_drafted"] == 3 and told["acceptance_percent"] == 50.0
    assert told["speedup_median"] == 2.0 and told["speedup_least"] == 0.8 and told["speedup_total"] == 8.0 / 12.0
    assert told["prompts_where_nothing_stood"] == 1 and told["prompts_where_nothing_stood_time_ratio"] == 1.25
    assert told["tokens_a_second_without"] == 5.0
    other = drafting.costs([pair(0, 0, 2.2), pair(3, 1, 9.0), pair(2, 0, 2.6), pair(1, 0, 2.4)])
    assert other["random_prompts"] == 4 and other["random_prompts_where_nothing_stood"] == 3
    assert other["random_drafted_tokens"] == 3
    assert other["random_prompts_where_nothing_stood_time_ratio"] == pytest.approx(1.2)
    assert drafting.costs([pair(3, 1, 9.0)])["random_prompts_where_nothing_stood_time_ratio"] is None


def test_prompts_are_tried_until_enough_count() -> None:
    def numbers() -> Iterator[Any]:
        yield from range(1000)

    def made(number: Any) -> drafting.Pair:
        return pair(number % 3, 0, 1.0)

    found = drafting.until(numbers(), made, 5, lambda each: each.drafted.drafted_tokens == 2, "drafted two")
    assert [each.drafted.drafted_tokens for each in found] == [0, 1, 2] * 5
    with pytest.raises(BudgetError, match="of 40 prompts only 0 drafted nine, and 2 are wanted"):
        drafting.until(numbers(), made, 2, lambda each: each.drafted.drafted_tokens == 9, "drafted nine")


def test_what_cannot_be_measured_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert drafting.main(["--lookahead", "0"]) == 2
    assert "--lookahead are from 1 on" in capsys.readouterr().err
    assert drafting.main(["--model", str(folder), "--answer", "200"]) == 2
    assert "tiny holds 256 tokens, and answers of 200 leave no prompt" in capsys.readouterr().err


def test_passages_are_our_own_text_and_no_two_overlap() -> None:
    found, text = passages(600, seed=1), whole()
    assert found == passages(600, seed=1) != passages(600, seed=2)
    assert sorted(found) == sorted(passages(600, seed=2))
    assert all(len(each) == 600 for each in found)
    ends = sorted((at, at + 600) for at in map(text.find, set(found)))
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(ends))
    assert all(at == 0 or text[at - 1] == "\n" for at, _ in ends)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_hundred_prompts_that_drafted_are_answered_alike(capsys: pytest.CaptureFixture[str]) -> None:
    """The model that ships, on the files of its own package: 48 tokens each, equal to the last."""
    assert drafting.main(["--prompts", "200", "--random", "20"]) == 0
    told = card(capsys.readouterr().out)
    assert told["prompts_that_drafted"] == 200 and told["prompts_that_differ"] == 0
    assert told["accepted_tokens"] > 200

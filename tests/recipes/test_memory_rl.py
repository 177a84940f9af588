"""The reinforcement and preference stages as one run: whole at a tiny size, going on where it was, refusing what is not
its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from riallm.eval.probes.counted import Asked
from riallm.eval.stats import share
from riallm.models.load import save_rxt
from riallm.models.rxt import RxT
from riallm.recipes import memory_rl
from riallm.recipes.memory_rl import CASES, STAGES, Settings, _pairs, _quiz, _task, main, told
from riallm.recipes.tell_ask import model

TINY = Settings(task=_task(1), begun=2, rows=4, quizzed=2, samples=2, judged=8, judging=2)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CASES, "one", lambda seed: TINY)


@pytest.mark.usefixtures("tiny")
def test_every_stage_is_run_once_and_told_with_its_control(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--out", str(tmp_path / "out"), "--steps", "2", "--questions", "20"]
    assert main(command) == 0
    first = capsys.readouterr().out
    results = json.loads(first.splitlines()[-1])["results"]["0"]
    assert list(results) == ["start", *STAGES]
    for name in STAGES:
        assert results[name]["memory"]["num"] == results["start"]["memory"]["num"] >= 20
        assert results[name]["minutes"] > 0
    assert results["feedback"]["judge"]["num"] > 0
    assert {"memory.reward", "memory.right", "reset.right", "swap.right"} <= set(results["feedback"]["drawn"][0])
    runs = {path: path.read_bytes() for path in (tmp_path / "out").rglob("metrics.jsonl")}
    assert len(runs) == len(STAGES) + 2  # the start, and the judge
    assert main(command) == 0
    assert capsys.readouterr().out == first
    assert {path: path.read_bytes() for path in runs} == runs
    assert main([*command[:-1], "30"]) == 2
    assert "other settings" in capsys.readouterr().err


def test_figures_are_by_conversation() -> None:
    """Ten questions of each of forty conversations are no four hundred."""

    def asked(condition: str, right: Callable[[int], bool]) -> list[Asked]:
        return [
            Asked(
                conversation=number,
                condition=condition,
                distance=1,
                live=1,
                retold=False,
                right=right(number),
                stale=False,
                none=False,
                donor=right(number) if condition == "swap" else None,
            )
            for number in range(40)
            for _ in range(10)
        ]

    before = {name: asked(name, lambda number: False) for name in ("memory", "swap")}
    found = told({name: asked(name, lambda number: number % 2 == 0) for name in before}, before)
    alone = share(20, 40)
    for name in ("memory", "swap", "donor"):
        assert found[name]["num"] == 400
        assert (found[name]["low"], found[name]["high"]) == pytest.approx((alone.low, alone.high), rel=0.02)
    gain = found["gain"]["estimate"]
    assert gain["value"] == 0.5 and gain["high"] - gain["low"] == pytest.approx(2 * 1.96 * 0.5 / 40**0.5, rel=0.02)


@pytest.mark.usefixtures("tiny")
def test_a_start_of_another_task_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = RxT(model(hidden=32, layers=1, slots=4, vocab=30))
    other.initialise(0)
    save_rxt(other, tmp_path / "model", bits=None, plain="float32")
    assert main(["--out", str(tmp_path / "out"), "--start", str(tmp_path / "model")]) == 2
    assert "30 tokens" in capsys.readouterr().err


def test_the_stages_share_no_conversation() -> None:
    seen = [_quiz(TINY, 0).given.tokens, *(_pairs(TINY, 0, stage=stage).accepted.tokens for stage in (4, 5, 6))]
    firsts = [tuple(each[:2].flatten().tolist()) for each in seen]
    assert len(set(firsts)) == len(firsts)


def test_few_judged_conversations_come_again_and_half_of_the_pairs_are_turned() -> None:
    assert torch.equal(_pairs(TINY, 0, stage=5, of=8).accepted.tokens, _pairs(TINY, 2, stage=5, of=8).accepted.tokens)
    plain, mixed = (_pairs(TINY, 0, stage=4, mixed=each) for each in (False, True))
    for row in range(4):
        pairs = plain.pairs[row]
        ours, theirs = (mixed.accepted, mixed.rejected) if row % 2 == 0 else (mixed.rejected, mixed.accepted)
        assert torch.equal(plain.accepted.tokens[row][pairs], ours.tokens[row][pairs])
        assert torch.equal(plain.rejected.tokens[row][pairs], theirs.tokens[row][pairs])
    assert memory_rl.three(1).seed == 1

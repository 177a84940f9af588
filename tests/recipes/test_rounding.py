"""Rounding goes through, compares over the same batches, and does nothing twice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from riallm.quant.blocks import Bits
from riallm.recipes import rounding
from riallm.recipes.table import recipe
from riallm.train.stage import Stage, run


def test_more_bits_are_over_the_same_batches() -> None:
    found = {"as trained": [(100.0, 100.0), (300.0, 100.0)], "4 bits": [(110.0, 100.0), (310.0, 100.0)]}
    told = rounding.table(found)
    assert told["4 bits"]["bits_per_byte"] == pytest.approx(2.1)
    assert told["4 bits"]["more"]["value"] == told["4 bits"]["more"]["low"] == pytest.approx(0.1)
    assert told["as trained"]["more"]["value"] == 0.0


def test_it_goes_through_and_does_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start = run(recipe("ria_smoke"), tmp_path / "start").folder

    def small(start: Path, steps: int, bits: Bits | None) -> Stage:
        smoke = recipe("ria_smoke")
        train = replace(smoke.train, max_steps=steps, round_bits=bits, round_from=0.0)
        return replace(smoke, start=str(start), bits=bits, train=train)

    monkeypatch.setattr(rounding, "stage", small)
    options = ["--start", str(start), "--out", str(tmp_path / "out"), "--steps", "2"]
    assert rounding.main(options) == 0
    told = capsys.readouterr().out
    rows = json.loads(told.splitlines()[-1])["rows"]
    assert list(rows) == [
        "as trained",
        "8 bits, rounded at the end",
        "8 bits, trained for",
        "4 bits, rounded at the end",
        "4 bits, trained for",
    ]
    values = {name: row["bits_per_byte"] for name, row in rows.items()}
    assert abs(values["8 bits, rounded at the end"] - values["as trained"]) < 0.05
    assert values["4 bits, rounded at the end"] != values["as trained"]
    monkeypatch.setattr(rounding, "run", None)
    assert rounding.main(options) == 0 and capsys.readouterr().out == told


def test_a_model_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rounding.main(["--start", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 2
    assert "none" in capsys.readouterr().err

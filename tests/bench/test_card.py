"""The card of a benchmark: for people above, one JSON object below, the machine named in both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from riallm.bench.card import Card, emit, machine


def test_the_last_line_is_what_the_card_says(capsys: pytest.CaptureFixture[str]) -> None:
    figures = {"validated_a_second": 61.25, "sandbox": "bubblewrap", "limit": None}
    emit(Card(name="validation", command="python -m x", figures=figures))
    text = capsys.readouterr().out
    told = json.loads(text.splitlines()[-1])
    assert told.items() >= {"name": "validation", "command": "python -m x", **figures}.items()
    assert told.items() >= machine().items()
    (line,) = [line for line in text.splitlines() if line.startswith("  validated_a_second")]
    assert line.endswith(" 61.25")


def test_the_processor_is_named_where_the_system_tells_it(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor : 0\nmodel name\t: Some Processor 3000\n")
    assert machine(proc=tmp_path)["processor"] == "Some Processor 3000"


def test_make_bench_names_every_benchmark() -> None:
    root = Path(__file__).parents[2]
    (names,) = [line for line in (root / "Makefile").read_text().splitlines() if line.startswith("BENCHMARKS")]
    there = {path.stem for path in (root / "riallm/bench").glob("*.py") if "sys.exit(main(" in path.read_text()}
    assert set(names.partition(":=")[2].split()) == there

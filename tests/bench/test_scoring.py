"""The benchmark of scoring, on a small project and a model of nothing but shape."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from riallm.bench.scoring import main
from riallm.testing.tiny import write_tiny

CODE = "def area(width, height):\n    size = width + height\n    return size\n"
TEST = "from shape import area\n\n\ndef test_area():\n    assert area(2, 3) == 6\n"


def test_the_card_counts_what_was_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, project = write_tiny(tmp_path / "tiny"), tmp_path / "project"
    project.mkdir()
    (project / "shape.py").write_text(CODE)
    (project / "test_shape.py").write_text(TEST)
    options = ["--project", str(project), "--model", str(model), "--candidates", "20", "--rounds", "1"]
    assert main(options) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (
        told["candidates"] == 20 and told["lines"] >= 2 and 0 < told["score_seconds"] == told["score_seconds_highest"]
    )
    assert told["candidates_a_second"] == pytest.approx(20 / told["score_seconds"])


def test_a_model_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--project", ".", "--model", "no-such-model"]) == 2
    assert "no-such-model" in capsys.readouterr().err

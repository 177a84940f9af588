"""Experiments say where they cannot write before they do anything."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

EXPERIMENTS = ("ablation", "tell_ask", "rounding", "memory_aims", "memory_rl")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_folder_that_cannot_be_is_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = ["--start", str(tmp_path)] if name == "rounding" else []
    main = importlib.import_module(f"riallm.recipes.{name}").main
    assert main(["--out", "/dev/null/x", *start]) == 2
    assert f"{name}: nothing can be written into the folder /dev/null/x: Not a directory" in capsys.readouterr().err


def test_every_experiment_with_an_out_is_here() -> None:
    folder = Path(importlib.import_module("riallm.recipes").__path__[0])
    found = {path.stem for path in folder.glob("*.py") if '"--out"' in path.read_text(encoding="utf-8")}
    assert found == set(EXPERIMENTS)

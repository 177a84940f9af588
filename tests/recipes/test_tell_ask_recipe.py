"""The tell/ask recipe: what it learns, and that what is finished is not done again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from riallm.core.errors import UsageError
from riallm.eval.probes.recall import CONDITIONS
from riallm.recipes import memory_aims, memory_rl
from riallm.recipes.tell_ask import ROWS, VARIANTS, Trial, details, draw, line, main, measured, smoke


def short(seed: int = 0) -> Trial:
    return replace(smoke(seed), joint=2, steps=2, rows=4)


def test_a_trial_is_trained_and_asked_once(tmp_path: Path) -> None:
    steps: list[float] = []
    found = measured(short(), tmp_path / "a", questions=20, on_step=lambda step: steps.append(step.nats))
    assert len(steps) == 4
    assert found["1x"]["questions"] >= 20 and set(CONDITIONS) <= set(found["1x"])
    assert found["2x"]["memory"]["exact"]["num"] == found["2x"]["questions"] >= 20
    again = measured(short(), tmp_path / "a", questions=20, on_step=lambda step: pytest.fail("trained again"))
    assert again == json.loads(json.dumps(found))
    for other, questions in ((short(seed=1), 20), (short(), 30)):
        with pytest.raises(UsageError, match="holds another trial or other questions"):
            measured(other, tmp_path / "a", questions=questions)


@pytest.mark.parametrize("reader", ["history", "encodings"])
def test_a_ceiling_is_asked_as_it_is_trained(reader: str, tmp_path: Path) -> None:
    read = measured(VARIANTS[reader](short()), tmp_path, questions=20)
    assert list(read["1x"]) == ["questions", reader] and "retold" in read["1x"][reader]
    assert line(reader, [read]).startswith(f"{reader} ") and len(details(reader, [read]).splitlines()) > 4
    draw({reader: [read]}, tmp_path / "recall.svg")


def test_all_variants_are_models_of_their_own() -> None:
    made = {name: change(smoke()) for name, change in VARIANTS.items()}
    assert len({repr(trial) for trial in made.values()}) == len(VARIANTS)
    assert made["window 1"].window == 1 and made["ours"].window is None
    assert not any("," in name for name in VARIANTS), "they are asked for with commas between"


def test_lines_and_the_picture_are_of_all_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = [measured(short(seed), tmp_path / str(seed), questions=20) for seed in range(2)]
    for result, value in zip(results, (0.25, 0.75), strict=True):
        result["1x"]["memory"]["exact"]["value"] = value
    assert " 50.0 at 1:" in line("ours", results)
    rows = details("ours", results).splitlines()
    assert re.match(r"  all +50\.0 +25\.0 \[[\d., ]+\] of \d+  +75\.0 \[", rows[1])
    shown = [name for name in ROWS if any(row.startswith(f"  {name} ") and row.count(" of ") == 2 for row in rows)]
    assert shown == [name for name in ROWS if name != "eight after"], "which these conversations are too short for"
    draw({"ours": results}, tmp_path / "recall.svg")
    assert "swap (control)" in (tmp_path / "recall.svg").read_text("utf-8")
    assert main(["--out", str(tmp_path), "--variants", "none"]) == 2
    assert "no variant 'none'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_small_memory_gives_back_what_it_was_told(tmp_path: Path) -> None:
    """Some three minutes of one core."""
    found = measured(smoke(), tmp_path, questions=500)["1x"]
    assert found["memory"]["exact"]["value"] > 0.6
    assert all(found[control]["exact"]["value"] < 0.12 for control in ("reset", "swap", "unread"))
    assert found["swap"]["donor"]["value"] > 0.6


@pytest.mark.parametrize("main", [main, memory_rl.main, memory_aims.main])
def test_no_seeds_are_refused(
    main: Callable[[Sequence[str]], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path), "--seeds", "0"]) == 2
    assert "--seeds is 0" in capsys.readouterr().err


def test_no_jobs_no_questions_and_no_folder_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ("--jobs", "--questions"):
        assert main(["--out", str(tmp_path), wrong, "0"]) == 2
        assert f"{wrong} " in capsys.readouterr().err
    assert main(["--out", str(tmp_path), "--plot", str(tmp_path / "none" / "recall.svg")]) == 2
    assert "there is no folder" in capsys.readouterr().err

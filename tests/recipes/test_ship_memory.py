"""A run of stages becomes a folder with weights and a card, whose figures are those of the records."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from riallm.checkpoint.folder import verify
from riallm.core.errors import UsageError
from riallm.core.shipped import folder_of
from riallm.recipes.rxt_nano import rxt_smoke
from riallm.recipes.ship import main, ship
from riallm.train.staged import run


def estimate(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 0.01, "high": value + 0.01, "num": 1234}


def evaluation(split: str, exact: float = 0.625) -> dict[str, Any]:
    """As `riallm eval memory` ends."""
    asked = {"exact": estimate(exact), "by_distance": {"1": estimate(0.75), "8": estimate(0.5)}}
    asked |= {"retold": estimate(0.4375), "retold_stale": estimate(0.25), "untold": estimate(0.875)}
    controls = {name: {"exact": estimate(0.015625), "donor": estimate(0.5625)} for name in ("reset", "swap", "unread")}
    lengths = {factor: {"memory": asked, **controls} for factor in ("1x", "2x", "4x")}
    return {"task": "memory", "split": split, "turns": 12, "command": f"riallm eval memory --split {split}", **lengths}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run(rxt_smoke(), folder)
    return folder


def test_a_run_of_stages_ships_with_what_was_measured(trained: Path, tmp_path: Path) -> None:
    told = []
    for split in ("unseen", "test"):
        told.append(tmp_path / f"{split}.txt")
        told[-1].write_text(f"a table\n{json.dumps(evaluation(split))}\n")
    shipped = tmp_path / "weights" / "tiny"
    ship(trained, shipped, told)
    card = (shipped / "README.md").read_text()
    for figure in (
        "62.5 % [61.5, 63.5]",
        "| 1,234 |",
        "swap 1.6 %",
        "the old value 25.0 %",
        "56.2 %",
        "24 interactions",
    ):
        assert figure in card, figure
    for step in ("joint: 2 steps, 8 conversations", "memory: 4 steps, 16 conversations", "Recipe rxt_smoke"):
        assert step in card, step
    assert card.index("### test") < card.index("### unseen")
    assert "### train" not in card, "what was not measured is not there"
    verify(shipped)
    again = tmp_path / "weights" / "again"
    assert main([str(shipped), "--to", str(again), "--evaluations", str(told[0])]) == 0
    newer = (again / "README.md").read_text()
    assert "joint: 2 steps" in newer and "### test" not in newer
    for each, claims in ((card, True), (newer, False)):
        assert ("gives them back" in each) == ("It shows that a memory of fixed size carries" in each) == claims
    assert (again / "layer_0.safetensors").read_bytes() == (trained / "model" / "layer_0.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (None, "it was not measured whether its memory carries what was said."),
        (evaluation("test", 0.02), "the figures below do not show that its memory carries what was said."),
        (evaluation("train", 0.9), "the figures below do not show that"),
    ],
)
def test_a_card_claims_no_more_than_was_measured(
    trained: Path, tmp_path: Path, told: dict[str, Any] | None, says: str
) -> None:
    records = []
    if told is not None:
        records.append(tmp_path / "told.txt")
        records[0].write_text(json.dumps(told))
    ship(trained, tmp_path / "tiny", records)
    card = " ".join((tmp_path / "tiny" / "README.md").read_text().split())
    assert says in card and ("None were measured" in card) == (not records)
    for claim in ("gives them back", "It shows that", "it knows the kinds"):
        assert claim not in card


def test_the_card_that_ships_is_made_of_its_records(tmp_path: Path) -> None:
    shipped = folder_of("rxt-nano")
    results = Path(__file__).parents[2] / "results"
    told = [results / f"2026-11-30-rxt-nano-{split}.txt" for split in ("test", "train", "unseen")]
    ship(shipped, tmp_path / "rxt-nano", told)
    assert (tmp_path / "rxt-nano/README.md").read_text() == (shipped / "README.md").read_text()


def test_a_folder_is_named_from_where_one_stands(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(trained.parent)
    assert main([trained.name, "--to", str(tmp_path / "tiny")]) == 0
    assert "joint: 2 steps" in (tmp_path / "tiny/README.md").read_text()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("kept")
    capsys.readouterr()
    for words, message in (
        (
            ("junkk", "--to", "x"),
            "ship: junkk is no folder of a run, and no shipped model: there is no junkk/stage.json",
        ),
        ((trained.name, "--to", str(tmp_path / "mine")), "mine is there and holds no model that could be replaced"),
        (
            (trained.name, "--to", str(tmp_path / "mine/thesis.txt/x")),
            "thesis.txt is no folder; name another for what is made, by --to",
        ),
    ):
        assert main(words) == 2
        assert message in capsys.readouterr().err
    assert (tmp_path / "mine/thesis.txt").read_text() == "kept"


def test_a_card_leaves_out_what_was_not_asked(trained: Path, tmp_path: Path) -> None:
    few = evaluation("test")
    memory = few["1x"]["memory"]
    nothing = {"value": None, "low": 0.0, "high": 1.0, "num": 0}
    del memory["untold"]
    memory |= {"retold": nothing, "retold_stale": nothing}
    few["1x"]["swap"]["donor"] = nothing
    record = tmp_path / "few.txt"
    record.write_text(json.dumps(few))
    ship(trained, tmp_path / "few", [record])
    card = (tmp_path / "few" / "README.md").read_text()
    assert "1 interaction after it was told" in card and "24 interactions" in card
    for missing in ("never told", "was changed", "that one's value"):
        assert missing not in card


def test_a_card_says_nothing_of_text_that_it_does_not_know(trained: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    recipe = json.loads((other / "stage.json").read_text())
    recipe["stages"][1] |= {"files": ["chats.jsonl"], "phases": []}
    (other / "stage.json").write_text(json.dumps(recipe))
    with pytest.raises(UsageError, match=r"files of yours \(chats.jsonl\)"):
        ship(other, tmp_path / "tiny", [])


def test_a_run_that_is_not_over_does_not_ship(trained: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    shutil.copytree(trained, half)
    shutil.rmtree(half / "1-memory")
    with pytest.raises(UsageError, match=r"has no 1-memory/metrics.jsonl: the run is not over"):
        ship(half, tmp_path / "tiny", [])
    assert not (tmp_path / "tiny").exists()

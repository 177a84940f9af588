"""A run becomes a folder with weights, card and notices; every figure of the card is one of the records."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from riallm.checkpoint.folder import add, verify
from riallm.core.errors import CheckpointError, UsageError
from riallm.models.load import load_ria
from riallm.recipes.ship import main, record, ship
from riallm.recipes.table import recipe
from riallm.train.stage import run

EVERY = {"package": "all", "num_files": 3, "num_bytes": 12345, "model": 1.0625, "xz": 1.5, "ngram": 1.25}


def estimate(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.01, "high": value + 0.01, "num": 100}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run(recipe("ria_smoke"), folder)
    return folder


def test_a_run_ships_with_what_was_measured(trained: Path, tmp_path: Path) -> None:
    records = {
        "bpb": {"task": "bpb", "rows": [EVERY]},
        "infill": {"task": "infill", "set": "held_out", "num": 100, "model": estimate(0.25), "ngram": estimate(0.11)},
        "repair": {
            "task": "repair",
            "set": "injected",
            "num": 77,
            "arms": {
                arm: {"fixed": {"correct": {"50": estimate(value)}}, "precision": estimate(0.9)}
                for arm, value in (("B2", 0.375), ("B4", 0.625))
            },
        },
    }
    paths = []
    for name, told in records.items():
        paths.append(tmp_path / f"{name}.txt")
        paths[-1].write_text(f"a table\n{json.dumps(told)}\n")
    ship(trained, tmp_path / "weights" / "tiny", paths)
    card = (tmp_path / "weights" / "tiny" / "README.md").read_text()
    _, head, body = card.split("---\n", 2)
    values = {key: json.loads(value) for key, _, value in (line.partition(": ") for line in head.splitlines())}
    assert values["license"] == "apache-2.0" and values["model-index"][0]["name"] == "tiny"
    assert values["model-index"][0]["results"][0]["metrics"][0]["value"] == 1.0625
    for figure in ("12,345 bytes", "25.0 % [24.0, 26.0]", "62.5 % [61.5, 63.5]", "B2 37.5 %", "12 steps", "9.2"):
        assert figure in body
    verify(tmp_path / "weights" / "tiny")
    assert load_ria(tmp_path / "weights" / "tiny").config == load_ria(trained / "model").config


def test_shipping_again_replaces_the_card_alone(trained: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert main([str(trained), "--to", str(tmp_path / "tiny")]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
    assert "None were measured" in (tmp_path / "tiny" / "README.md").read_text()
    weights = "layer_0.safetensors"
    assert (tmp_path / "tiny" / weights).read_bytes() == (trained / "model" / weights).read_bytes()


def test_a_shipped_model_gets_a_new_card_without_its_run(trained: Path, tmp_path: Path) -> None:
    shipped, bits = tmp_path / "tiny", tmp_path / "bpb.txt"
    ship(trained, shipped, [])
    old = (shipped / "README.md").read_text()
    bits.write_text(json.dumps({"task": "bpb", "rows": [EVERY]}))
    for _ in range(2):
        assert main([str(shipped), "--to", str(shipped), "--evaluations", str(bits)]) == 0
        verify(shipped)
        card = (shipped / "README.md").read_text()
        assert "12,345 bytes" in card and "12,345 bytes" not in old
        assert card.partition("## Training")[2] == old.partition("## Training")[2] and "12 steps" in card
    assert next(line for line in card.splitlines() if "million parameters" in line) in old


def test_a_run_that_goes_on_tells_of_both(trained: Path, tmp_path: Path) -> None:
    shipped, folder = tmp_path / "tiny", tmp_path / "second"
    ship(trained, shipped, [])
    first = recipe("ria_smoke")
    run(dataclasses.replace(first, start=str(shipped), train=dataclasses.replace(first.train, max_steps=3)), folder)
    for _ in range(2):  # the card that it started from is gone the second time
        ship(folder, shipped, [])
        card = (shipped / "README.md").read_text()
        assert card.count("12 steps") == 1 and "From there on: Recipe ria_smoke, seed 0: 3 steps" in card


def test_what_cannot_ship_is_refused(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--to", str(tmp_path / "tiny")]) == 2
    assert "is no folder of a run, and no shipped model" in capsys.readouterr().err
    broken = tmp_path / "broken.json"
    broken.write_text("no object\n")
    with pytest.raises(UsageError, match="does not end with the JSON object"):
        record(broken)
    ship(trained, tmp_path / "tiny", [])
    with pytest.raises(CheckpointError, match="is part of the model"):
        add(tmp_path / "tiny", {"config.json": b"{}"})
    (tmp_path / "tiny" / "README.md").write_text("changed by hand")
    with pytest.raises(CheckpointError, match=r"README\.md"):
        verify(tmp_path / "tiny")

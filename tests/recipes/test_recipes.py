"""Every recipe is a value that can be read; the small one trains from text to a model, the document's own narrowly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from riallm.__main__ import main
from riallm.core.config import from_json, override, to_json
from riallm.core.errors import CheckpointError, UsageError
from riallm.models.load import load_ria
from riallm.nn.meta import TokenMeta
from riallm.recipes.ria import narrow
from riallm.recipes.table import RECIPES, TIERS, recipe
from riallm.tokenizer.saved import load
from riallm.train.loop import Step
from riallm.train.stage import Stage, run


@pytest.mark.parametrize("name", RECIPES)
def test_each_recipe_goes_to_json_and_back(name: str) -> None:
    stage = recipe(name)
    assert from_json(Stage, json.loads(json.dumps(to_json(stage)))) == stage
    assert override(stage, ["train.optimiser.lr=0.5"]).train.optimiser.lr == 0.5


@pytest.mark.parametrize(("tier", "rate", "batch"), [("ria-1b", 3e-4, 2 << 20), ("ria-128b", 1e-4, 16 << 20)])
def test_the_document_s_own_are_as_written(tier: str, rate: float, batch: int) -> None:
    stage = recipe(f"{tier}_as_written")
    assert stage.train.optimiser.kind == "adamw" and stage.train.optimiser.lr == rate
    assert stage.train.schedule.kind == "cosine" and stage.train.schedule.warmup == 0.05
    assert stage.train.accumulate * stage.batches.rows * stage.batches.context == batch


@pytest.mark.parametrize("tier", TIERS)
def test_the_document_s_own_run_two_steps_when_narrow(tier: str, tmp_path: Path) -> None:
    found = run(narrow(recipe(f"{tier}_as_written")), tmp_path)
    assert found.steps == 2 and found.bits_per_byte > 0


def test_the_small_one_trains_from_raw_text_to_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "ria_smoke", "--out", str(tmp_path), "--json"]) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out.splitlines()[-1])
    assert told["steps"] == 12 and "tokens/s" in captured.err and "min left" in captured.err
    assert (tmp_path / "curves.svg").read_text().lstrip().startswith("<?xml")
    model, tokenizer = load_ria(tmp_path / "model"), load(tmp_path / "model" / "tokenizer.json")
    ids = tokenizer.encode("def f(x):\n")
    with torch.inference_mode():
        logits = model.logits(model(torch.tensor([ids]), TokenMeta.plain(1, len(ids))).hidden)
    assert logits.shape == (1, len(ids), tokenizer.vocab_size)
    lines = (tmp_path / "metrics.jsonl").read_bytes()
    assert main(["train", "ria_smoke", "--out", str(tmp_path), "--json"]) == 0  # over already: nothing is done again
    assert (tmp_path / "metrics.jsonl").read_bytes() == lines
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == told
    assert main(["train", "ria_smoke", "train.seed=1", "--out", str(tmp_path), "--json"]) == 2
    assert "a run of other settings" in capsys.readouterr().err


def test_a_run_may_begin_with_a_model_s_weights(tmp_path: Path) -> None:
    first = run(replace(recipe("ria_smoke"), bits=8), tmp_path / "first")
    told: list[Step] = []
    again = replace(recipe("ria_smoke"), start=str(first.folder))
    run(again, tmp_path / "second", on_step=told.append)
    steps = [json.loads(line) for line in (tmp_path / "first" / "metrics.jsonl").read_text().splitlines()]
    assert told[0].nats < steps[0]["nats"] - 0.3
    assert (tmp_path / "second" / "tokenizer.json").read_bytes() == (first.folder / "tokenizer.json").read_bytes()
    with pytest.raises(CheckpointError, match="does not fit"):
        run(replace(again, model=replace(again.model, num_hidden_layers=1)), tmp_path / "third")
    with pytest.raises(CheckpointError, match="no model of ours"):
        run(replace(again, start=str(tmp_path / "none")), tmp_path / "fourth")


def test_what_a_recipe_cannot_be_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "ria_huge"]) == 2
    assert "no recipe 'ria_huge'; there are ria_nano, " in capsys.readouterr().err
    assert main(["train", "ria_smoke", "width=3"]) == 2
    assert "no setting 'width'" in capsys.readouterr().err
    assert main(["train", "list"]) == 0
    assert "ria_trial: 256 wide, 4 layers" in capsys.readouterr().out
    with pytest.raises(UsageError, match="json: held out and trained on"):
        override(recipe("ria_smoke"), ["text.held_out=('json',)"])
    with pytest.raises(UsageError, match="rows of 256 tokens, but the model takes 128"):
        override(recipe("ria_smoke"), ["batches.context=256"])

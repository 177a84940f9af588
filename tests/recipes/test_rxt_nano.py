"""The recipe of rxt-nano, all stages at a size for tests."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from riallm.core.errors import UsageError
from riallm.data.conversations.tokens import make_tokenizer
from riallm.models.load import TOKENIZER, load_rxt, save_rxt
from riallm.models.rxt import RxT
from riallm.recipes.rxt_nano import rxt_nano, rxt_nano_gpu, rxt_smoke
from riallm.tokenizer import saved as tokenizers
from riallm.train import loop
from riallm.train.conversations import Conversations
from riallm.train.loop import Step
from riallm.train.staged import StagedRecipe, SupervisedStage, run


def test_both_stages_make_a_model_with_its_tokenizer(tmp_path: Path) -> None:
    begun: list[tuple[str, int]] = []
    finished = run(
        rxt_smoke(), tmp_path / "run", on_stage=lambda name, steps: begun.append((name, steps)) or (lambda step: None)
    )
    assert begun == [("joint", 2), ("memory", 4)]
    assert finished.steps == 6
    tokenizer = tokenizers.load(finished.folder / TOKENIZER)
    assert tokenizer.sha256 == make_tokenizer().sha256
    shipped = load_rxt(finished.folder)
    shipped.check_interaction(torch.tensor([tokenizer.encode("What is my dog called?")]))
    again = run(rxt_smoke(), tmp_path / "run", on_stage=lambda name, steps: pytest.fail(f"{name} was done"))
    assert again == finished


def metrics(place: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]


def test_stages_divide_the_seconds_and_see_all_their_phases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that ticks when it is read, so that each step lasts a second."""
    ticks = itertools.count()
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
    recipe = replace(rxt_smoke(), seconds=50.0, shares=(1.0, 4.0))
    phases = recipe.stages[1].phases

    def heard(stop: int | None) -> Callable[[str, int], Callable[[Step], None]]:
        def hear(name: str, step: Step) -> None:
            if name == "memory" and step.step == stop:
                raise KeyboardInterrupt

        return lambda name, steps: partial(hear, name)

    with pytest.raises(KeyboardInterrupt):
        run(recipe, tmp_path, on_stage=heard(7))
    assert run(recipe, tmp_path, on_stage=heard(None)).steps == 50
    joint, memory = (metrics(tmp_path / place) for place in ("0-joint", "1-memory"))
    assert [step["step"] for step in joint] == list(range(1, 11))
    assert [step["step"] for step in memory] == list(range(1, 41))
    numbers = [sum(phase.begin <= step / 40 for phase in phases) - 1 for step in range(40)]
    seeded = tuple(replace(phase, config=replace(phase.config, seed=1)) for phase in phases)
    made = Conversations(phases=seeded, num=40, tokenizer=tokenizers.load(tmp_path / TOKENIZER), rows=4)
    wanted = [made.of_phase(number, step).num_tokens for step, number in enumerate(numbers)]
    assert [step["num_tokens"] for step in memory] == wanted
    assert len(set(numbers)) == len(phases)
    assert memory[-1]["factor"] < memory[10]["factor"], "the rate of learning follows the clock too"
    told = json.loads((tmp_path / "result.json").read_text())
    assert told == {"steps": 50, "stages": {"joint": 10, "memory": 40}, "device": "processor"}
    with pytest.raises(UsageError, match="holds a run of other settings"):
        run(replace(recipe, seconds=51.0), tmp_path)


def test_a_run_from_before_there_were_seconds_goes_on(tmp_path: Path) -> None:
    run(rxt_smoke(), tmp_path)
    path = tmp_path / "stage.json"
    known = json.loads(path.read_text())
    del known["seconds"], known["shares"]
    path.write_text(json.dumps(known, indent=1, sort_keys=True))
    assert run(rxt_smoke(), tmp_path).steps == 6
    del known["seed"], known["model"]
    path.write_text(json.dumps(known))
    with pytest.raises(UsageError, match="holds a run of other settings"):
        run(rxt_smoke(), tmp_path)


def test_a_share_is_for_each_stage_and_of_something() -> None:
    recipe = rxt_smoke()
    assert [replace(recipe, seconds=60.0).seconds_of(number) for number in (0, 1)] == [20.0, 40.0]
    assert recipe.seconds_of(0) is None
    for wrong in ({"shares": (1.0, 1.0)}, {"seconds": 9.0, "shares": (1.0,)}, {"seconds": 9.0, "shares": (1.0, 0.0)}):
        with pytest.raises(UsageError, match="shares divide seconds among 2 stages"):
            replace(recipe, **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="a time above 0"):
        replace(recipe, seconds=0.0)


def test_stages_share_no_conversation(tmp_path: Path) -> None:
    from riallm.train.staged import _batches

    recipe, tokenizer = rxt_smoke(), make_tokenizer()
    same = replace(recipe, stages=(recipe.stages[0], replace(recipe.stages[0], name="again")))
    (one, steps), (other, _) = (_batches(same, number, tokenizer) for number in (0, 1))
    assert steps == 2
    assert not torch.equal(one(0).tokens, other(0).tokens)


def test_a_stage_reads_files_or_makes_conversations() -> None:
    stage = rxt_smoke().stages[0]
    for wrong in ({"phases": ()}, {"files": ("rows.jsonl",)}):
        with pytest.raises(UsageError, match="either files or phases"):
            replace(stage, **wrong)
    assert isinstance(stage, SupervisedStage)


@pytest.mark.parametrize("recipe", [rxt_nano(), rxt_nano_gpu()], ids=lambda recipe: recipe.name)
def test_sizes_are_what_can_ship(recipe: StagedRecipe, tmp_path: Path) -> None:
    model = RxT(recipe.model)
    model.initialise(0)
    save_rxt(model, tmp_path / "model", bits=recipe.bits)
    assert sum(path.stat().st_size for path in (tmp_path / "model").iterdir()) < 5_000_000

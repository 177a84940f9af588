"""The recipe of rxt-nano, all stages at a size for tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from riallm.core.errors import UsageError
from riallm.data.conversations.tokens import make_tokenizer
from riallm.models.load import TOKENIZER, load_rxt
from riallm.recipes.rxt_nano import rxt_nano, rxt_nano_gpu, rxt_smoke
from riallm.tokenizer import saved as tokenizers
from riallm.train.staged import SupervisedStage, run


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


def test_sizes_are_what_can_ship() -> None:
    from riallm.models.rxt import RxT

    with torch.device("meta"):
        small, large = RxT(rxt_nano().model), RxT(rxt_nano_gpu().model)
    num_small, num_large = (sum(each.numel() for each in model.parameters()) for model in (small, large))
    assert num_small < 4_500_000, "one byte each, and the scales, are at most 5 MB"
    assert num_large > num_small

"""The folder of a run: of one process, of one run, whole or refused with what to do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from riallm.core.errors import CheckpointError, UsageError
from riallm.models.load import TOKENIZER
from riallm.recipes.ria import ria_smoke
from riallm.recipes.rxt_nano import rxt_smoke
from riallm.train import saved, stage, staged
from riallm.train.staged import StagedRecipe

TRAINER = """
import sys, time
from pathlib import Path
from riallm.recipes.rxt_nano import rxt_smoke
from riallm.train.staged import run

def hear(step):
    if step.step == 1:
        print("trains", flush=True)
        sys.stdin.read()

run(rxt_smoke(), Path(sys.argv[1]), on_stage=lambda name, steps: hear)
"""


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    staged.run(rxt_smoke(), tmp_path / "run")
    return tmp_path / "run"


def test_a_second_training_in_the_folder_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    words = [sys.executable, "-c", TRAINER, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        try:
            assert first.stdout is not None and first.stdout.readline() == b"trains\n"
            with pytest.raises(UsageError, match=rf"another training \(process {first.pid}\) is at work in .*by --out"):
                staged.run(rxt_smoke(), tmp_path)
            with pytest.raises(UsageError, match="another training"):
                stage.run(ria_smoke(), tmp_path)
        finally:
            os.kill(first.pid, signal.SIGKILL)
    assert staged.run(rxt_smoke(), tmp_path).steps == 6


def test_a_refused_first_try_leaves_nothing_behind(tmp_path: Path) -> None:
    made = rxt_smoke()
    with pytest.raises(UsageError, match="vocabulary"):
        staged.run(replace(made, model=replace(made.model, vocab_size=40)), tmp_path)
    assert staged.run(made, tmp_path).steps == 6


def test_what_an_unsaved_run_made_is_made_anew(tmp_path: Path) -> None:
    stage.same(rxt_smoke(), tmp_path)
    for name in (TOKENIZER, "0-joint/train.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("of other settings")
    assert staged.run(replace(rxt_smoke(), seed=1), tmp_path).steps == 6


def test_other_settings_are_named_with_both_values(finished: Path) -> None:
    joint, memory = rxt_smoke().stages
    other = replace(rxt_smoke(), seed=5, stages=(replace(joint, rows=2), replace(memory, rows=3)), bits=4)
    wanted = r"bits is 8 there and 4 now; seed is 0 there and 5 now; stages.joint.rows is 4 there and 2 now; and 1 more"
    with pytest.raises(UsageError, match=wanted):
        staged.run(other, finished)
    for place in finished.glob("*/saves"):
        place.rename(place.with_name("elsewhere"))
    with pytest.raises(UsageError, match="bits is 8 there"):  # the model alone is a run, too
        staged.run(other, finished)


@pytest.mark.parametrize("text", ['{"seed": ', "[]", "\udcff"])
def test_damaged_settings_are_said(finished: Path, text: str) -> None:
    (finished / "stage.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match=r"stage.json does not say what is run here.*Remove it"):
        staged.run(rxt_smoke(), finished)
    (finished / "stage.json").unlink()
    assert staged.run(rxt_smoke(), finished).steps == 6


def test_a_model_that_was_cut_off_is_said_and_written_again(finished: Path) -> None:
    layer = finished / "model/layer_0.safetensors"
    whole = layer.read_bytes()
    layer.write_bytes(whole[:50])
    with pytest.raises(CheckpointError, match=rf"has 50 bytes.*Remove {finished}/model; the same command writes it"):
        staged.run(rxt_smoke(), finished)
    (finished / "model").rename(finished / "damaged")
    staged.run(rxt_smoke(), finished)
    assert layer.read_bytes() == whole


def test_so_is_that_of_a_single_stage(tmp_path: Path) -> None:
    one = ria_smoke()
    place = stage.run(one, tmp_path).folder
    (place / "config.json").write_bytes(b" " * (place / "config.json").stat().st_size)
    with pytest.raises(CheckpointError, match=r"is damaged.*writes it again from the last save"):
        stage.run(one, tmp_path)


@pytest.mark.parametrize(("place", "message"), [("file", "is no folder"), ("file/x", "Not a directory")])
def test_a_folder_that_cannot_be_is_refused(tmp_path: Path, place: str, message: str) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UsageError, match=message):
        staged.run(rxt_smoke(), tmp_path / place)
    with pytest.raises(UsageError, match=message):
        stage.run(ria_smoke(), tmp_path / place)


def test_data_that_nothing_reads_are_refused(tmp_path: Path) -> None:
    def given(data: Path) -> StagedRecipe:
        return replace(rxt_smoke(), data=str(data))

    with pytest.raises(UsageError, match=f"rxt_smoke reads no files, and {tmp_path} has no tokenizer.json"):
        staged.run(given(tmp_path), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    first = staged.run(rxt_smoke(), tmp_path / "first")
    found = staged.run(given(first.folder), tmp_path / "run")  # which has a tokenizer
    assert saved.steps(tmp_path / "run/1-memory/saves") and found.steps == 6

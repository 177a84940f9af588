"""RxT-Beta-Micro's training as written: every stage, at a width that takes seconds, from files to a model folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from riallm.__main__ import main
from riallm.core.config import from_json, to_json
from riallm.core.errors import CheckpointError, UsageError
from riallm.models.load import load_rxt
from riallm.models.zoo import RXT_BETA_MICRO
from riallm.recipes.rxt_beta_micro import BETTER_CHATS, CHATS, INTERACTIONS, PRE_TRAINING, narrow, rxt_beta_micro
from riallm.rxt import RxTBeta
from riallm.tokenizer import saved as tokenizers
from riallm.tokenizer.hybrid import HybridTokenizer
from riallm.tokenizer.training import train as train_vocabulary
from riallm.train import saved
from riallm.train.episodes import MemoryAware
from riallm.train.joint import Joint
from riallm.train.parts import WRITING
from riallm.train.staged import StagedRecipe, SupervisedStage, run, tokenizer_of
from riallm.train.writing import Blended

TEXT = Path(textwrap.__file__).read_text(encoding="utf-8")


def write_data(folder: Path) -> Path:
    """A few rows of every file that the recipe reads."""
    folder.mkdir(parents=True, exist_ok=True)

    def put(name: str, *rows: object) -> None:
        (folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")

    for name in PRE_TRAINING:
        put(name, *({"text": part, "url": "x"} for part in TEXT.split("\n\n") if part.strip()))
    for name in INTERACTIONS:
        put(name, {"query": "self", "answer": "return"}, {"query": "def", "answer": "if", "think": "class"})
    others = [{"query": "text", "answer": "width"}, {"query": "and", "answer": "not", "think": "or"}]
    chats = [{"query": "a", "answer": "b", "interactions": others[: 1 + number % 2]} for number in range(8)]
    for name in CHATS + BETTER_CHATS:
        put(name, *chats)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "rows")


def tiny(data: Path, **more: object) -> StagedRecipe:
    return replace(narrow(rxt_beta_micro()), data=str(data), **more)  # type: ignore[arg-type]


def test_it_is_as_the_document_has_it() -> None:
    recipe = rxt_beta_micro()
    assert recipe.model == RXT_BETA_MICRO and recipe.dtype == "bfloat16"
    assert from_json(StagedRecipe, json.loads(json.dumps(to_json(recipe)))) == recipe
    joint, single, memory, aware, better = recipe.stages
    for stage in recipe.stages:
        assert stage.train.optimiser.kind == "adamw" and not stage.train.optimiser.cautious
        assert stage.train.schedule.kind == "cosine"
    assert isinstance(joint.objective, Joint) and joint.objective.hidden == 0.15
    assert isinstance(single.objective, Joint) and single.form == "interaction"
    assert isinstance(memory.objective, Blended) and memory.epochs == 0.3
    assert [phase.parts for phase in memory.train.trains] == [WRITING]
    assert aware.objective == better.objective == MemoryAware()
    assert (aware.epochs, better.epochs) == (2.0, 5.0)
    assert aware.files == memory.files != better.files


def test_steps_are_what_epochs_make() -> None:
    aware = rxt_beta_micro().stages[3]
    assert aware.num_steps(80_000) == 2 * 80_000 // (2 * 16)
    assert aware.num_steps(3) == 1
    assert replace(aware, epochs=0.3, rows=4).num_steps(81) == 1
    assert replace(aware, train=replace(aware.train, max_steps=7)).num_steps(80_000) == 7
    for wrong in ({"files": ()}, {"rows": 0}, {"epochs": 0.0}):
        with pytest.raises(UsageError, match="stage aware: either files or phases"):
            replace(aware, **wrong)  # type: ignore[arg-type]


def test_every_stage_runs_two_steps_and_a_model_comes_out(tmp_path: Path) -> None:
    recipe = tiny(write_data(tmp_path / "rows"))
    told: list[tuple[str, int]] = []
    steps: list[str] = []

    def on_stage(name: str, num: int):  # type: ignore[no-untyped-def]
        told.append((name, num))
        return lambda step: steps.append(name)

    found = run(recipe, tmp_path, on_stage=on_stage)
    assert told == [(stage.name, 2) for stage in recipe.stages] and found.steps == 10
    assert steps == [name for name, _ in told for _ in range(2)]
    lines = [json.loads(line) for line in (tmp_path / "0-joint" / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["metrics"].keys() >= {"seen_nats", "hidden_nats", "masked_nats"} and lines[0]["bits_per_byte"] > 0
    aims = [json.loads(line) for line in (tmp_path / "2-memory" / "metrics.jsonl").read_text().splitlines()]
    assert 0 < aims[0]["nats"] < 2 and aims[0]["bits_per_byte"] is None  # a distance is no likelihood
    before, after = (
        saved.read(tmp_path / place / "saves" / "step-00000002") for place in ("1-interactions", "2-memory")
    )
    moved = {
        name.removeprefix("model.")
        for name, tensor in before.tensors.items()
        if name.startswith("model.") and not torch.equal(tensor, after.tensors[name])
    }
    assert moved and all(name.startswith("memory_attention.") for name in moved)
    model = load_rxt(found.folder)
    assert model.config == recipe.model
    beta = RxTBeta.from_pretrained(found.folder)
    assert list(beta.interact(**beta.tokenize_query("def"), max_seq_len=12, seed=0))[-2:] == [-1, -2]
    for name in PRE_TRAINING:  # what a stage that is over has read is not read again
        (tmp_path / "rows" / name).write_text("no row", encoding="utf-8")
    assert run(recipe, tmp_path) == found


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_rxt_beta_micro as test
test.run(test.long(Path({data!r})), Path({folder!r}))
"""


def long(data: Path, *, save_seconds: float = 0.0) -> StagedRecipe:
    """Three steps a stage, each saved."""
    made = narrow(rxt_beta_micro(), max_steps=3)
    stages = tuple(
        replace(stage, epochs=9.0, train=replace(stage.train, save_seconds=save_seconds)) for stage in made.stages
    )
    return replace(made, data=str(data), stages=stages)


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of a run that nothing interrupts."""
    return run(long(data, save_seconds=1e9), tmp_path_factory.mktemp("whole")).folder


@pytest.mark.slow
@pytest.mark.parametrize("at", ["0-joint", "3-aware"])
def test_a_killed_run_goes_on_bit_for_bit(data: Path, whole: Path, tmp_path: Path, at: str) -> None:
    code = CHILD.format(tests=str(Path(__file__).parent), data=str(data), folder=str(tmp_path))
    threads = str(torch.get_num_threads())
    process = subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": threads}
    )
    saves = tmp_path / at / "saves"
    while not saved.steps(saves):
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert not (tmp_path / "model").exists()
    begun: list[str] = []

    def on_stage(name: str, num: int):  # type: ignore[no-untyped-def]
        begun.append(name)
        return lambda step: None

    found = run(long(data), tmp_path, on_stage=on_stage)
    names = [stage.name for stage in long(data).stages]
    assert begun in (names[int(at[0]) :], names[int(at[0]) + 1 :])  # what was over is not begun again
    one, other = (sorted(path for path in place.rglob("*") if path.is_file()) for place in (found.folder, whole))
    assert [path.name for path in one] == [path.name for path in other] and len(one) > 3
    assert all(left.read_bytes() == right.read_bytes() for left, right in zip(one, other, strict=True))


def test_the_command_trains_it_and_says_what_it_did(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["train", "list"]) == 0
    listed = capsys.readouterr().out
    assert "rxt_beta_micro: 256 wide, 14 layers; joint, interactions, memory, aware, aware-better; from data" in listed
    monkeypatch.setitem(sys.modules["riallm.recipes.table"].STAGED, "rxt_tiny", lambda: narrow(rxt_beta_micro()))
    argv = ["train", "rxt_tiny", f"data={data}", "dtype=float32", "--out", str(tmp_path), "--json"]
    assert main(argv) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out.splitlines()[-1])
    assert told["steps"] == 10 and told["stages"] == [stage.name for stage in rxt_beta_micro().stages]
    assert "step 2  loss" in captured.err
    assert main(argv) == 0  # over: nothing is done again
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {**told, "stages": []}
    assert main([*argv[:2], f"data={data}", "--out", str(tmp_path), "--json"]) == 2
    assert "a run of other settings" in capsys.readouterr().err


def test_missing_files_are_named_before_anything_is_done(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "rxt_beta_micro", "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert "real-chat-smat.jsonl (conversation)" in told and "data=FOLDER" in told
    half = write_data(tmp_path / "half")
    (half / CHATS[0]).unlink()
    with pytest.raises(
        UsageError, match=r"half lacks real-chat-smat.jsonl \(conversation\), which rxt_beta_micro_narr"
    ):
        run(tiny(half), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_a_run_cannot_read_is_refused(data: Path, tmp_path: Path) -> None:
    bad = write_data(tmp_path / "bad")
    with (bad / CHATS[0]).open("a") as file:
        file.write('{"query": "a"}\n')
    with pytest.raises(UsageError, match=r"real-chat-smat.jsonl:9: answer is None"):
        run(tiny(bad), tmp_path / "out")
    (bad / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="no tokenizer of ours"):
        run(tiny(bad), tmp_path / "other")
    assert not (tmp_path / "other" / "tokenizer.json").exists()  # so that mending it is enough
    with pytest.raises(UsageError, match="names of their own"):
        replace(tiny(data), stages=())


def test_the_tokenizer_is_the_user_s_or_learned_once(data: Path, tmp_path: Path) -> None:
    own = write_data(tmp_path / "own")
    recipe = tiny(own)
    learned = tokenizer_of(recipe, tmp_path / "a")
    assert learned.vocab_size == 600
    tokenizers.save(learned, own / "tokenizer.json")
    given = tokenizer_of(replace(recipe, model=replace(recipe.model, vocab_size=700)), tmp_path / "b")
    assert given.sha256 == learned.sha256
    with pytest.raises(UsageError, match="the tokenizer has 600 tokens, the model 500"):
        tokenizer_of(replace(recipe, model=replace(recipe.model, vocab_size=500)), tmp_path / "c")
    tokenizers.save(HybridTokenizer(train_vocabulary([TEXT], size=600)), own / "tokenizer.json")
    with pytest.raises(UsageError, match="cannot write interactions"):
        tokenizer_of(recipe, tmp_path / "d")
    (own / "tokenizer.json").unlink()
    late: tuple[SupervisedStage, ...] = recipe.stages[1:]
    with pytest.raises(UsageError, match=r"no tokenizer.json, and the first stage reads no text"):
        tokenizer_of(replace(recipe, stages=late), tmp_path / "e")

"""Visits to a GPU: every command rehearsed on the processor, exact round trips, and a trainer that dies and goes on."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from riallm.__main__ import main as command_line
from riallm.bench.gpu import check, join, memory_equality, pack, parcels, parts, rehearsal, train, unpack
from riallm.bench.gpu.running import Trainer
from riallm.core.errors import UsageError
from riallm.data import repair_corpus
from riallm.data.corpus import shards
from riallm.data.corpus.manifest import read as read_manifest

torch = pytest.importorskip("torch")
rxt_beta_micro = pytest.importorskip("riallm.recipes.rxt_beta_micro").rxt_beta_micro


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / rehearsal.NAME
    rehearsal.corpus(folder)
    return folder


def packed(corpus: Path, out: Path, *, most_bytes: int = 10**9, seed: int = 0) -> parcels.Packed:
    return parcels.pack(corpus, out, name="rehearsal", parcel_bytes=9_000, most_bytes=most_bytes, seed=seed, preset=1)


def test_parcels_restore_the_corpus_exactly(corpus: Path, tmp_path: Path) -> None:
    made = packed(corpus, tmp_path / "out")
    sizes = [(tmp_path / "out" / name).stat().st_size for name in made.names]
    assert len(sizes) > 2 and max(sizes) <= 9_000 and sum(sizes) == made.num_bytes
    parcels.unpack(tmp_path / "out", tmp_path / "back")
    for split, num in (("train", 2), ("validation", 1)):
        rows = list(shards.read_corpus(corpus, split))
        assert rows == list(shards.read_corpus(tmp_path / "back", split))
        assert len({row.package for row in rows}) == num
        repairs = list(repair_corpus.read(corpus, split))
        assert repairs == list(repair_corpus.read(tmp_path / "back", split)) and repairs
    assert (tmp_path / "back/manifest.json").read_bytes() == (corpus / "manifest.json").read_bytes()
    with pytest.raises(UsageError, match="holds a corpus already"):
        parcels.unpack(tmp_path / "out", tmp_path / "back")


def test_what_does_not_fit_is_drawn_by_the_seed_and_the_manifest_says_so(corpus: Path, tmp_path: Path) -> None:
    whole = packed(corpus, tmp_path / "whole").num_bytes
    made = packed(corpus, tmp_path / "a", most_bytes=whole * 5 // 6)
    again = packed(corpus, tmp_path / "b", most_bytes=whole * 5 // 6)
    other = packed(corpus, tmp_path / "c", most_bytes=whole * 5 // 6, seed=1)
    assert made.share < 1.0 and made.num_bytes <= whole * 5 // 6 and made == again

    def bytes_of(name: str) -> list[bytes]:
        return [path.read_bytes() for path in sorted((tmp_path / name).iterdir())]

    assert bytes_of("a") == bytes_of("b") != bytes_of("c") and other.share < 1.0
    parcels.unpack(tmp_path / "a", tmp_path / "back")
    manifest, rows = read_manifest(tmp_path / "back/manifest.json"), list(shards.read_corpus(corpus, "train"))
    kept = list(shards.read_corpus(tmp_path / "back", "train"))
    assert 0 < len(kept) < len(rows) and [row for row in rows if row in kept] == kept
    assert manifest.totals("train")["rows"] == len(kept) and "of the training rows, seed 0" in manifest.rules
    assert manifest.totals("train")["kept_bytes"] == sum(len(d.text.encode()) for row in kept for d in row.documents)
    assert list(shards.read_corpus(tmp_path / "back", "validation")) == list(shards.read_corpus(corpus, "validation"))
    with pytest.raises(UsageError, match="give --share"):
        packed(corpus, tmp_path / "d", most_bytes=100)


def test_a_damaged_or_missing_parcel_is_named(corpus: Path, tmp_path: Path) -> None:
    name = packed(corpus, tmp_path).names[1]
    data = bytearray((tmp_path / name).read_bytes())
    data[5] ^= 1
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UsageError, match=rf"{name} is damaged"):
        parcels.unpack(tmp_path, tmp_path / "back")
    (tmp_path / name).unlink()
    with pytest.raises(UsageError, match=rf"{name} is missing"):
        parcels.unpack(tmp_path, tmp_path / "back")
    assert not (tmp_path / "back/manifest.json").exists()
    with pytest.raises(UsageError, match="holds no parcels"):
        parcels.unpack(tmp_path / "back", tmp_path / "more")


def test_parts_join_exactly_and_old_ones_go_away(tmp_path: Path) -> None:
    data = os.urandom(2_500)
    parts.split(os.urandom(9_000), tmp_path, "x", part_bytes=1_000)
    made = parts.split(data, tmp_path, "x", part_bytes=1_000)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["x.00", "x.01", "x.02"]
    assert [part.bytes for part in made] == [1_000, 1_000, 500] and parts.joined(tmp_path, made) == data
    with pytest.raises(UsageError, match="no name of a part"):
        parts.parts_of([{"name": "../x.00", "bytes": 1, "sha256": ""}])


def test_names_that_lead_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    for name in ("../x", "a/../x", "/x", "a/b/c"):
        with (tmp_path / "tar").open("wb") as file:
            parts.write_tar(file, [(name, b"data")])
        with (tmp_path / "tar").open("rb") as file, pytest.raises(UsageError, match="member"):
            list(parts.read_tar(file))


def test_what_may_not_come_back_is_refused(tmp_path: Path) -> None:
    for number in range(parts.MOST_FILES):
        (tmp_path / f"f{number}").write_bytes(b"x")
    assert parts.must_fit(tmp_path) == parts.MOST_FILES
    with (tmp_path / "f0").open("wb") as file:
        file.truncate(parts.MOST_FILE_BYTES + 1)
    with pytest.raises(UsageError, match="f0 cannot travel"):
        parts.must_fit(tmp_path)
    (tmp_path / "f0").write_bytes(b"x")
    (tmp_path / "more").write_bytes(b"x")
    with pytest.raises(UsageError, match="holds 9 files"):
        parts.must_fit(tmp_path)


def test_pack_unpack_and_join_are_rehearsed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pack.main(["--rehearse", "--out", str(tmp_path / "parcels")]) == 0
    assert "read back as they were" in capsys.readouterr().out
    assert unpack.main([str(tmp_path / "parcels"), "--to", str(tmp_path / "corpus")]) == 0
    assert unpack.main(["--rehearse"]) == 0
    assert "rows of validation" in capsys.readouterr().out
    assert join.main(["--rehearse"]) == 0
    assert "layer_0.safetensors" in capsys.readouterr().out
    assert join.main([str(tmp_path), "--to", str(tmp_path / "model")]) == 2
    assert "no report of a visit" in capsys.readouterr().err


def test_check_is_rehearsed_and_says_where_there_is_no_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["--rehearse", "--out", str(tmp_path)]) == 0
    told = json.loads((tmp_path / "check.json").read_text())
    assert (
        told["failed"] == 0
        and told["memory aware gradient float32"] == 0.0
        and told["training tokens a second"] > 0
        and told["decoding 2 tokens a second"] > 0
    )
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["failed"] == 0
    if not torch.cuda.is_available():
        assert check.main(["--out", str(tmp_path)]) == 2
        assert "sees no GPU" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("weight", "seen", "unseen"),
    [
        ("memory_attention.layers.0.write_attn.v_proj.weight", "slots", "joint loss"),
        ("lm_head.weight", "logits", "slots"),
        ("encoder.0.attn.v_proj.weight", "joint gradient", "nothing"),
    ],
)
def test_a_device_that_writes_or_answers_otherwise_is_found(
    weight: str, seen: str, unseen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A weight that is another on the way there stands for a sum that comes out otherwise."""
    from riallm.models.rxt import RxT

    def moved(model: RxT, device: str) -> RxT:
        with torch.no_grad():
            model.get_parameter(weight).mul_(3.0)
        return model

    right = list(memory_equality.all_checks("cpu"))
    assert right and all(found.holds for found in right)
    monkeypatch.setattr(RxT, "to", moved)
    wrong = {found.name for found in memory_equality.all_checks("cpu") if not found.holds}
    for form in memory_equality.forms():
        assert f"{form} {seen} float32" in wrong and f"{form} {seen} bfloat16" in wrong
        assert f"{form} {unseen} float32" not in wrong


def test_a_check_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from riallm.bench.gpu import equality

    wrong = equality.Found(name="sums", distance=float("nan"), allowed=1.0)
    monkeypatch.setattr(equality, "all_checks", lambda device: iter([wrong]))
    monkeypatch.setattr(check, "_timed", lambda *args, **more: {})
    assert not wrong.holds
    assert check.main(["--rehearse", "--out", str(tmp_path)]) == 1


def visit(tmp_path: Path, *more: str) -> int:
    words = ["--rehearse", "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"), "--every", "0.2"]
    return train.main([*words, *more])


@pytest.mark.slow  # two trainers, each with its imports
@pytest.mark.timeout(600)
def test_a_trainer_is_looked_on_killed_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One run of five commands: cut off, killed, looked on again, refused as another, joined."""
    trainer = Trainer(work=tmp_path / "work", command=[])
    assert visit(tmp_path, "train.max_steps=40", "--wait", "0") == 1  # cut off at once; the trainer lives on
    assert trainer.running() and json.loads((tmp_path / "out/report.json").read_text())["state"] == "running"
    while trainer.last_step() is None or not list((tmp_path / "work").glob("saves/step-*")):
        assert trainer.running(), trainer.log_tail()
        time.sleep(0.05)
    os.kill(holder(tmp_path / "work/trainer.lock"), signal.SIGKILL)
    while trainer.running():
        time.sleep(0.05)
    step = trainer.last_step()
    assert step is not None and step["step"] < 40 and not trainer.over()
    assert visit(tmp_path, "train.max_steps=40") == 0
    steps = [json.loads(line)["step"] for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 41))
    told = json.loads((tmp_path / "out/report.json").read_text())
    assert told["state"] == "over" and told["result"]["steps"] == 40
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"report.json", "stage.json", "metrics.jsonl", "result.json", "log.txt", "model.tar.00"}
    capsys.readouterr()
    assert visit(tmp_path, "train.max_steps=41") == 2
    assert "name another folder by --work" in capsys.readouterr().err
    join.join(tmp_path / "out", tmp_path / "model")
    for path in (tmp_path / "work/model").iterdir():
        assert (tmp_path / "model" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.slow  # two trainers, each with its imports
@pytest.mark.timeout(600)
def test_a_trainer_of_several_stages_is_killed_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Killed in its last stage; what comes back is a model to ask, and its records."""
    words, seconds = ["--recipe", "rxt_nano_gpu"], "seconds=12"
    trainer = Trainer(work=tmp_path / "work", command=[])
    assert visit(tmp_path, *words, seconds, "--wait", "0") == 1
    while not list((tmp_path / "work/1-memory").glob("saves/step-*")):
        assert trainer.running(), trainer.log_tail()
        time.sleep(0.05)
    os.kill(holder(tmp_path / "work/trainer.lock"), signal.SIGKILL)
    while trainer.running():
        time.sleep(0.05)
    joint, killed = (path.read_text().splitlines() for path in trainer.metrics())
    assert (
        not trainer.over() and trainer.progress().startswith("joint: step ") and "; memory: step " in trainer.progress()
    )
    capsys.readouterr()
    assert visit(tmp_path, *words, seconds) == 0
    assert "over: joint: step " in capsys.readouterr().out
    told = json.loads((tmp_path / "out/report.json").read_text())
    assert told["state"] == "over" and told["recipe"] == "rxt_smoke" and told["last_step"]["elapsed"] == 1.0
    assert (tmp_path / "out/0-joint/metrics.jsonl").read_text().splitlines() == joint
    memory = [json.loads(line) for line in (tmp_path / "out/1-memory/metrics.jsonl").read_text().splitlines()]
    assert [step["step"] for step in memory] == list(range(1, len(memory) + 1)) and memory[-1]["elapsed"] == 1.0
    assert json.loads(killed[-1])["elapsed"] < 1.0
    assert told["result"]["stages"] == {"joint": len(joint), "memory": len(memory)}
    names = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    records = {"report.json", "stage.json", "log.txt", "0-joint/metrics.jsonl", "1-memory/metrics.jsonl"}
    assert names == records | {"model.tar.00"}
    join.join(tmp_path / "out", tmp_path / "out/model")
    asked = ["eval", "memory", "--model", str(tmp_path / "out/model"), "--questions", "4", "--turns", "3", "--json"]
    capsys.readouterr()
    assert command_line(asked) == 0
    assert json.loads(capsys.readouterr().out)["1x"]["questions"] >= 4


def test_recipes_of_stages_that_cannot_be_trained_there_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from riallm.recipes import table

    out = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    assert train.main(["--recipe", "rxt_beta_micro", *out]) == 2
    assert "rxt_beta_micro has 5 stages" in capsys.readouterr().err
    assert train.main(["--recipe", "rxt_nano_gpu", "shares=(1, 2, 3)", *out]) == 2
    assert "shares divide seconds among 2 stages" in capsys.readouterr().err
    fewer = replace(rxt_beta_micro(), stages=rxt_beta_micro().stages[:2])
    monkeypatch.setitem(table.STAGED, "fewer", lambda: fewer)
    assert train.main(["--recipe", "fewer", *out]) == 2
    assert "reads files of yours" in capsys.readouterr().err
    assert not (tmp_path / "work").exists(), "nothing was started"


def test_minutes_less_the_reserve_are_the_seconds_of_all_stages(tmp_path: Path) -> None:
    """As the plan of a visit has them; no trainer is started, since somebody trains in the folder already."""
    trainer = Trainer(work=tmp_path / "work", command=[])
    lock = trainer._locked()
    assert lock is not None
    words = ["--recipe", "rxt_nano_gpu", "--minutes", "12", "--reserve", "60", "--wait", "0"]
    assert train.main([*words, "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"), "device=cpu"]) == 1
    os.close(lock)
    plan = json.loads((tmp_path / "work" / train.PLAN).read_text())
    assert plan == {
        "recipe": "rxt_nano_gpu",
        "overrides": ["seconds=660.0", "device=cpu"],
        "given": ["device=cpu"],
    }


def holder(lock: Path) -> int:
    """The process that has the lock open, this one left out."""
    if sys.platform != "linux":
        pytest.skip("open files of other processes are read from /proc")
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if any(link.exists() and link.samefile(lock) for link in (entry / "fd").iterdir()):
                    return int(entry.name)
            except OSError:
                continue
    raise AssertionError("nobody holds the lock")


def test_a_trainer_that_fails_is_told_with_its_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert visit(tmp_path, "batches.context=4096") == 2  # seen before anything is started
    assert "rows of 4096 tokens" in capsys.readouterr().err
    (tmp_path / "work/saves/step-00000001").mkdir(parents=True)
    (tmp_path / "work/stage.json").write_text("{}")
    assert visit(tmp_path) == 1
    out = capsys.readouterr().out
    assert "failed" in out and "holds a run of other settings" in out

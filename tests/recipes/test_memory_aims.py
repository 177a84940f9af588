"""The two aims side by side: what trains, what is asked, and that nothing is done twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from riallm.core.errors import UsageError
from riallm.recipes import memory_aims
from riallm.recipes.memory_aims import AIMS, line, main, measured, said_again, small
from riallm.train import saved
from riallm.train.joint import JointRxT

STEPS = {"joint": 2, "aim": 2, "reading": 2, "aware": 1}


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_aims, "ROWS", 4)
    monkeypatch.setattr(memory_aims, "ASKED", 1)
    monkeypatch.setattr(memory_aims, "STEPS", STEPS)


def moved(before: Path, after: Path) -> set[str]:
    one, other = (saved.read(saved.latest(place / "saves") or place).tensors for place in (before, after))
    return {name[6:] for name in one if name.startswith("model.") and not torch.equal(one[name], other[name])}


def test_memory_attention_alone_moves_and_then_the_decoder_alone(tmp_path: Path) -> None:
    measured("document", 0, tmp_path, ours=False)
    own = tmp_path / "document" / "0"
    aimed = moved(tmp_path / "0" / "joint", own / "aim")
    assert aimed and all(name.startswith("memory_attention.") for name in aimed)
    read = moved(own / "aim", own / "reading")
    assert read and all(name.split(".")[0] in ("layers", "norm", "lm_head") for name in read)
    assert any(name.startswith("memory_attention.") for name in moved(own / "aim", own / "aware"))


def test_a_memory_that_is_never_written_carries_nothing() -> None:
    """The control: where both memories are one, both figures are one."""
    made = JointRxT(small(ours=True), mask_token=0)
    made.initialise(0)
    made.memory_attention.forward = lambda slots, encoded, **more: slots  # type: ignore[method-assign]
    found = said_again(made, 0, delay=0)
    assert found["own"] == pytest.approx(found["other"], rel=1e-6)
    made = JointRxT(small(ours=True), mask_token=0)
    made.initialise(0)
    found = said_again(made, 0, delay=0)
    assert found["own"] != pytest.approx(found["other"], rel=1e-6)


def test_all_aims_are_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--out", str(tmp_path), "--seeds", "1"]
    assert main(argv) == 0
    told = capsys.readouterr().out.splitlines()
    assert [text[:16].strip() for text in told[:-1]] == list(AIMS)
    results = json.loads(told[-1])["results"]
    assert results.keys() == AIMS.keys() and all(line(name, found) in told for name, found in results.items())
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert len([path for path in times if "joint" in str(path)]) == 1  # one joint stage for all aims of a seed
    assert main(argv) == 0
    assert capsys.readouterr().out.splitlines() == told
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == times
    with pytest.raises(UsageError, match=r"none/0.json is of other steps"):
        measured("none", 0, tmp_path / "document", ours=False, steps={**STEPS, "aware": 2})

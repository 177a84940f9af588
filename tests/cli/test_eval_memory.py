"""`riallm eval memory`: what it prints, draws and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from riallm.__main__ import main
from riallm.models.load import TOKENIZER, load_rxt, save_rxt
from riallm.testing.tiny import write_tiny
from riallm.testing.tiny_rxt import write_tiny_rxt
from riallm.tokenizer import saved
from riallm.tokenizer.interaction import markers


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that ends every answer at once, for speed."""
    place = tmp_path_factory.mktemp("models")
    random = write_tiny_rxt(place / "random", max_interaction=80)
    model, tokenizer = load_rxt(random), random / TOKENIZER
    with torch.no_grad():
        model.lm_head.bias[markers(saved.load(tokenizer)).end] = 1000.0
    save_rxt(model, place / "tiny", bits=None, files={TOKENIZER: tokenizer.read_bytes()})
    return place / "tiny"


def asked(tiny: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[str, dict[str, Any]]:
    assert main(["eval", "memory", "--model", str(tiny), "--questions", "5", "--turns", "3", *words]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    return "\n".join(lines), json.loads(last)


def test_tables_for_people_and_one_object_for_programs(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "recall.svg"
    shown, told = asked(tiny, capsys, "--plot", str(picture))
    for turns in (3, 6, 12):
        assert f"conversations of {turns} interactions" in shown
    assert "unread" in shown and "after a change" in shown and "nats" in shown and "facts told: 1" in shown
    for each in ("reset", "swap", "unread", "exact", "never told", "nats", "distance", "facts told"):
        assert f"\n{each}: " in shown, "what the words of the tables mean"
    assert (told["task"], told["model"], told["split"], told["turns"]) == ("memory", "tiny", "test", 3)
    for length in ("1x", "2x", "4x"):
        assert told[length]["questions"] >= 5
        for name in ("memory", "reset", "swap", "unread"):
            exact = told[length][name]["exact"]
            assert exact["value"] == 0.0  # it says nothing
            assert exact["low"] == 0.0 < exact["high"]
            assert exact["num"] == told[length][name]["nats"]["num"] == told[length]["questions"]
        assert max(map(int, told[length]["memory"]["by_distance"])) < 3 * int(length[0])
    assert max(map(int, told["4x"]["memory"]["by_distance"])) >= 3
    drawn = picture.read_bytes()
    assert b"<svg" in drawn and drawn.rstrip().endswith(b"</svg>")
    silent, again = asked(tiny, capsys, "--json", "--plot", str(picture))
    assert silent == ""
    assert picture.read_bytes() == drawn
    changing = ("seconds_of_this_call", "date")
    assert {key: told[key] for key in told if key not in changing} == {
        key: again[key] for key in again if key not in changing
    }


def test_splits_and_seeds_are_other_conversations(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = [
        asked(tiny, capsys, "--json", *words)[1]
        for words in ((), ("--split", "unseen"), ("--split", "train"), ("--seed", "1"))
    ]
    groups = [json.dumps(each["4x"]["memory"]["by_group"]) for each in found]
    assert len(set(groups)) == 4
    assert [each["conversations"]["split"] for each in found] == ["test", "unseen", "train", "test"]
    assert "--split unseen" in found[1]["command"]


def test_what_cannot_be_asked_is_refused(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ria = write_tiny(tmp_path / "ria", context=64)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{")
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text("[]")
    for words, complaint in (
        (("--model", str(ria)), "of the family 'ria', which has no memory"),
        (("--model", str(tmp_path / "none")), "no such model"),
        (("--model", str(broken)), "is no JSON"),
        (("--model", str(other)), "of the family None"),
        (("--model", str(tiny), "--questions", "0"), "--questions is 0; it is at least 1"),
        (("--model", str(tiny), "--turns", "1", "--questions", "5"), "--turns is 1; it is 2 to 256"),
        (("--model", str(tiny), "--turns", "257"), "--turns is 257; it is 2 to 256"),
        (("--model", str(tiny), "--plot", str(tmp_path / "none" / "recall.svg")), "there is no folder"),
        (("--model", str(tiny), "--plot", str(tmp_path)), "it is a folder; give a file in it"),
        (("--model", str(tiny), "--plot", str(tmp_path / "recall.png")), "give a name that ends in .svg"),
        (("--model", str(tiny), "--seed", "-1"), "--seed is -1"),
        (("--model", str(tiny), "--device", "nowhere"), "--device nowhere"),
    ):
        assert main(["eval", "memory", *words]) == 2
        assert complaint in capsys.readouterr().err

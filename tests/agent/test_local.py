"""A model in this process: what it says of an edit is the likelihood of the tokens that say it."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch

from riallm.agent.client import Client, Context
from riallm.agent.local import ANSWER_TOKENS, LocalClient
from riallm.agent.passage import passage
from riallm.code.edit import Edit
from riallm.code.source import Source
from riallm.core import shipped
from riallm.core.errors import CheckpointError
from riallm.nn.meta import TokenMeta
from riallm.testing.tiny import write_tiny

TEXT = "def area(radius):\n    square = radius * radius\n    return square * 3\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def client(folder: Path) -> LocalClient:
    return LocalClient(folder)


def edit(original: str, new: str) -> Edit:
    start = TEXT.index(original)
    line = TEXT[:start].count("\n") + 1
    return Edit(path="a.py", start=start, original=original, text=new, line=line, operator="test")


def test_an_edit_is_a_choice_of_lines_and_of_what_they_become(client: LocalClient) -> None:
    assert isinstance(client, Client) and client.capabilities.edits
    edits = [edit("square * 3", "square * 4"), edit("* 3", "* 31"), edit("radius * radius", "radius")]
    said = client.score_edits(TEXT, edits)
    four, thirty, alone = (math.exp(value.text) for value in said)
    assert four + thirty == pytest.approx(1.0, rel=1e-3) and alone == 1.0  # there is no other text to choose
    assert said[0].place == said[1].place != said[2].place
    assert 0 < math.exp(said[0].place) + math.exp(said[2].place) < 1

    # Chosen token by token, by what the model says behind the passage.
    t = client._tokenizer
    first = TEXT.splitlines()[edits[0].line - 1].replace("square * 3", "square * ")
    tails = [[*t.encode(f"{first}{end}"), t.special("<|edit_end|>")] for end in ("4", "31")]
    shown = [*t.valued("file", "a.py"), t.special("<|code_start|>"), *t.encode(TEXT.rstrip("\n"))]
    old = t.encode(TEXT.splitlines()[edits[0].line - 1])
    ids = [*shown, t.special("<|code_end|>"), t.special("<|old|>"), *old, t.special("<|new|>")]
    at = next(at for at, pair in enumerate(zip(*tails, strict=False)) if len(set(pair)) > 1)
    tokens = torch.tensor([ids + tails[0][:at]])
    with torch.inference_mode():
        logits = client._model.logits(client._model(tokens, TokenMeta.plain(1, tokens.shape[1])).hidden[0, -1])
    wanted = logits[[tail[at] for tail in tails]].softmax(-1)
    assert four == pytest.approx(float(wanted[0]), abs=0.05)  # bfloat16


def test_an_edit_that_cannot_be_shown_is_as_unlikely_as_the_least_likely(client: LocalClient) -> None:
    text = TEXT + "\n\n" + TEXT.replace("area", "other")
    far = Edit(path="a.py", start=0, original=text, text="pass\n", line=1, operator="test")
    values = client.score_edits(text, [edit("square * 3", "square * 4"), edit("def area", "def x"), far])
    assert values[2].place == min(value.place for value in values[:2])
    assert values[2].text == min(value.text for value in values[:2])
    assert all(math.isfinite(value.place + value.text) for value in values)


def test_proposals_are_edits_of_the_passage(client: LocalClient) -> None:
    source = Source.parse("a.py", TEXT.encode())
    shown = passage(source, 2)
    for each in client.propose_edits("a.py", TEXT, 2, num=6):
        assert shown.start <= each.start and each.end <= shown.end and 0.0 < each.prior <= 1.0
        assert each.apply(TEXT) != TEXT


def test_what_tests_suspect_is_likelier_to_be_wrong(client: LocalClient) -> None:
    """Of an untrained model any line may be wrong; what the tests say decides."""
    shown = passage(Source.parse("a.py", TEXT.encode()), 2)
    prefix, _ = client._shown(shown)
    lines = shown.text.rstrip().splitlines()
    for number in (0, len(lines) - 1):
        found = client._places(shown, prefix, {each: 1.0 if each == number else 1e-9 for each in range(len(lines))})
        assert lines[number] in max(found, key=lambda old: found[old])
    assert any("\n" in old for old in found) and max(found.values()) <= 0.0


def test_holes_of_long_files_are_cut_to_what_fits(client: LocalClient) -> None:
    context = Context(path="a.py", prefix="x = 1\n" * 2000, suffix="y = 2\n" * 2000)
    ids = client._hole(context)
    assert len(ids) <= 256 - ANSWER_TOKENS
    special = client._tokenizer.special
    before, after = ids.index(special("<|fim_prefix|>")), ids.index(special("<|fim_suffix|>"))
    assert len(ids) - before > before - after > 20
    scores = client.score(context, ["z", "z = 1", ""])
    assert len(scores) == 3 and all(value < 0 for value in scores)
    assert all(len(fill.text) <= 12 for fill in client.infill(context, num=4, max_chars=12))


def test_a_damaged_model_is_named(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "broken"
    shutil.copytree(folder, copy)
    (copy / "layer_0.safetensors").write_bytes((copy / "layer_0.safetensors").read_bytes()[:-7])
    with pytest.raises(CheckpointError, match="layer_0"):
        LocalClient(copy)


def test_who_ranks_where_nobody_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The model that ships, where its libraries and its folder are; else the n-gram."""
    assert shipped.default() == "ria-nano" and shipped.folder_of("ria-nano").is_dir()
    with monkeypatch.context() as patch:
        patch.setattr(shipped, "find_spec", lambda name: None if name == "torch" else object())
        assert shipped.default() == "ngram"
    with monkeypatch.context() as patch:
        patch.setattr(shipped, "home", lambda: tmp_path)
        assert shipped.default() == "ngram"

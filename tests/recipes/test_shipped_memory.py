"""rxt-nano as it lies in the tree: it gives back what it was told, from its memory, in the terminal and at the port."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import httpx2
import pytest

from riallm.core.errors import CheckpointError
from riallm.core.shipped import folder_of
from riallm.data.conversations.conversation import PEOPLE, ConversationConfig
from riallm.data.conversations.frames import Use, fill, general, own
from riallm.data.conversations.relations import RELATIONS
from riallm.data.conversations.values import Split, pool
from riallm.eval.probes.counted import table
from riallm.eval.probes.rxt_talker import RxTTalker
from riallm.eval.probes.talk import ask
from riallm.models.load import TOKENIZER, load_ria, load_rxt
from riallm.tokenizer.saved import load

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/models/rxt.md"
NAME = "rxt-nano"
RIALLM = [sys.executable, "-m", "riallm"]
MAX_BYTES = 5_000_000
TOLD, SMALL_TALK, ASKED = "I have a dog named Captain Rex.", "Nice weather today.", "What is my dog called?"


@pytest.fixture(scope="module")
def folder() -> Path:
    return folder_of(NAME)


def test_it_is_small_and_its_card_says_what_was_measured(folder: Path) -> None:
    assert sum(path.stat().st_size for path in folder.iterdir()) < MAX_BYTES
    card = (folder / "README.md").read_text("utf-8")
    for split in ("test", "train", "unseen"):
        assert re.search(rf"### {split}: .*?\n.*?`riallm eval memory .*--split {split} ", card, flags=re.DOTALL)


def test_it_remembers_and_without_its_memory_does_not(folder: Path) -> None:
    talker = RxTTalker(load_rxt(folder), load(folder / TOKENIZER))
    config = ConversationConfig(num_turns=12, split="test", seed=77)
    found = table(ask(talker, config, num=150, rows=50))
    assert found["memory"]["exact"]["value"] > 0.6
    for control in ("reset", "swap", "unread"):
        assert found[control]["exact"]["value"] < 0.05


def test_a_command_that_it_is_not_for_says_which_are(folder: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"model_type 'rxt'; expected 'ria'; .* riallm chat, serve and eval memory"
    ):
        load_ria(folder)


def talked(*said: str) -> list[str]:
    """What `riallm chat` answers, a line each; words for the program are answered elsewhere."""
    words = [*RIALLM, "chat", "--model", NAME]
    done = subprocess.run(words, input="\n".join(said) + "\n", capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()


def test_a_conversation_in_the_terminal() -> None:
    *_, remembered, forgotten = talked(TOLD, ":fork other", SMALL_TALK, ASKED, ":forget", ASKED)
    assert "Captain Rex" in remembered and "Captain Rex" not in forgotten


def test_the_conversation_of_the_readme_is_one() -> None:
    (shown,) = re.findall(r"^```text conversation\n(.*?)^```$", (ROOT / "README.md").read_text(), flags=re.M | re.S)
    lines = shown.splitlines()
    said = [line[2:] for line in lines if line.startswith("> ")]
    assert talked(*said) == [line for line in lines if line[0] not in ">["]


def test_the_python_of_the_page_says_what_stands_there(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, kept = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), flags=re.M | re.S)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(start, names)
    assert "Your dog's name is Captain Rex." in capsys.readouterr().out
    exec(kept, names)
    assert capsys.readouterr().out.splitlines() == re.findall(r"\)  # (.*)", kept)


def sayable(text: str) -> bool:
    """Whether a sentence of training or test is this one, of anybody, with values of its kind."""
    uses: tuple[Use, ...] = ("tell", "change", "ask")
    splits: tuple[Split, ...] = ("train", "test")
    for relation in RELATIONS:
        values = [each for split in splits for each in pool(relation.kind, split) if each in text] or [""]
        for use, split, subject in product(uses, splits, (None, *PEOPLE)):
            for sentence, v, old in product((*own(relation, use, split), *general(use, split)), values, values):
                if fill(sentence, subject=subject, v=v, old=old, thing=relation.thing).text == text:
                    return True
    return False


def test_what_the_page_says_can_be_said_can_be() -> None:
    page = " ".join(PAGE.read_text().partition("## What can be said")[2].partition("\n## ")[0].split())
    assert f"It knows {len(RELATIONS)} kinds of facts" in page
    assert f"two words that it has met: {', '.join(each.thing for each in RELATIONS)}. Each" in page
    assert f"{', '.join(PEOPLE[:-1])} or {PEOPLE[-1]}, each" in page
    samples = [text for text in re.findall(r"`([^`]+)`", page) if text[-1] in ".?"]
    assert len(samples) == 8 and all(map(sayable, samples)), [text for text in samples if not sayable(text)]
    assert not sayable("My name is Bob.") and not sayable("What is my name?")


@pytest.fixture(scope="module")
def server() -> Iterator[httpx2.Client]:
    """A real one, of a process of its own."""
    words = [*RIALLM, "serve", "--model", NAME, "--port", "0", "--quiet"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        told = ""
        try:
            for line in process.stdout:
                told += line
                if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                    with httpx2.Client(base_url=found[0], timeout=60) as client:
                        yield client
                    break
            else:
                raise AssertionError(told)
        finally:
            process.kill()


def test_a_conversation_at_the_port_goes_on_from_any_answer(server: httpx2.Client) -> None:
    def asked(text: str, before: str | None = None) -> tuple[str, str]:
        body = {"model": NAME, "input": text, "temperature": 0, "previous_response_id": before}
        answer = server.post("/v1/responses", json=body)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        return found["id"], json.dumps(found["output"])

    begun, _ = asked(SMALL_TALK)
    rex, _ = asked(TOLD, begun)
    other, _ = asked(TOLD.replace("Captain Rex", "Sir Bruno"), begun)
    assert "Captain Rex" in asked(ASKED, rex)[1]
    assert "Sir Bruno" in asked(ASKED, other)[1]
    assert not re.search("Rex|Bruno", asked(ASKED, begun)[1])

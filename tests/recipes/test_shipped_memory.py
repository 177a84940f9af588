"""rxt-nano as it lies in the tree: it gives back what it was told, from its memory, in the terminal and at the port."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from riallm.core.errors import CheckpointError
from riallm.core.shipped import folder_of
from riallm.data.conversations.conversation import ConversationConfig
from riallm.eval.probes.counted import table
from riallm.eval.probes.rxt_talker import RxTTalker
from riallm.eval.probes.talk import ask
from riallm.models.load import TOKENIZER, load_ria, load_rxt
from riallm.tokenizer.saved import load

ROOT = Path(__file__).parents[2]
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


def test_the_quick_start_of_the_document_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/models/rxt.md").read_text(), flags=re.M | re.S)
    exec(code, {})
    assert "Your dog's name is Captain Rex." in capsys.readouterr().out


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

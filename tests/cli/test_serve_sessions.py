"""`riallm serve --sessions`: where memories are kept, and what cannot be."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import openai
import pytest

from riallm.__main__ import main
from riallm.testing.tiny import write_tiny
from riallm.testing.tiny_rxt import write_tiny_rxt


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models")
    write_tiny(place / "ria")
    write_tiny_rxt(place / "rxt")
    return place


@pytest.mark.parametrize(
    ("model", "words", "complaint"),
    [
        ("ria", ("--sessions", "{new}"), "ria keeps no memory of conversations"),
        ("rxt", ("--sessions", "{text}"), "it is no database, and was left as it is"),
        ("ria", ("--sessions-size", "5"), "--sessions-size: ria keeps no memory of conversations"),
        ("ria", ("--sessions-days", "5"), "--sessions-days: ria keeps no memory of conversations"),
        ("rxt", ("--sessions", "/nowhere/s"), "there is no folder /nowhere for it"),
        ("rxt", ("--sessions", "/"), "--sessions /: it is a folder"),
        ("rxt", ("--sessions-size", "0"), "--sessions-size is 0.0"),
        ("rxt", ("--sessions-size", "inf"), "--sessions-size is inf"),
        ("rxt", ("--drain", "-1"), "--drain is -1.0"),
        ("rxt", ("--drain", "nan"), "--drain is nan"),
        ("rxt", ("--sessions", "{new}", "--sessions-size", "0.001"), "is 1048 bytes; one memory of rxt takes"),
        ("rxt", ("--sessions-days", "-1"), "--sessions-days is -1.0"),
        ("rxt", ("--kv-memory", "0.001"), "one conversation of rxt takes"),
    ],
)
def test_what_cannot_be_is_said(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, words: tuple[str, ...], complaint: str
) -> None:
    text, new = tmp_path / "text", tmp_path / "new"
    text.write_text("something else, longer than a header of a database could be " * 10)
    before = text.read_bytes()
    given = [word.format(text=text, new=new) for word in words]
    assert main(["serve", "--model", str(models / model), "--port", "0", *given]) == 2
    assert complaint in capsys.readouterr().err
    assert text.read_bytes() == before and not new.exists()


def test_a_server_that_ends_leaves_one_file(models: Path, tmp_path: Path) -> None:
    words = ("serve", "--model", str(models / "rxt"), "--port", "0", "--quiet", "--sessions", str(tmp_path / "s"))
    process = subprocess.Popen([sys.executable, "-m", "riallm", *words], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        with openai.OpenAI(base_url=line.split()[3], api_key="none", max_retries=0) as client:
            client.conversations.create()
        assert (tmp_path / "s-wal").exists()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    assert [each.name for each in tmp_path.iterdir()] == ["s"], "whoever copies it has all of it"

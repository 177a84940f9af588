"""A hole is where the line says, and what is shown parses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from riallm.__main__ import main
from riallm.agent.client import Infill
from riallm.agent.local import LocalClient
from riallm.cli.complete import hole
from riallm.core.errors import UsageError
from riallm.testing.tiny import write_tiny

TEXT = "def f(x):\n    y = x\n    return y\n"


def test_the_hole_is_the_code_of_the_line() -> None:
    assert hole(TEXT, 2, insert=False) == ("def f(x):\n    ", "\n    return y\n")
    assert hole(TEXT, 2, insert=True) == ("def f(x):\n    ", "\n    y = x\n    return y\n")
    assert hole("a\r\nb", 2, insert=False) == ("a\r\n", "")
    assert hole("\tx = 1\r\n", 1, insert=True) == ("\t", "\r\n\tx = 1\r\n")
    with pytest.raises(UsageError, match="lines 1 to 3"):
        hole(TEXT, 4, insert=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "f.py").write_text(TEXT)
    return tmp_path / "f.py"


def test_fillings_that_parse_are_shown_and_written(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = [Infill("y = (", -0.5), Infill("y = x + 1", -1.0), Infill("y = 2", -2.0)]
    monkeypatch.setattr(LocalClient, "infill", lambda self, context, **asked: told)
    model = str(write_tiny(tmp_path / "tiny"))
    asked = ["complete", "--file", str(file), "--line", "2", "--model", model]
    assert main([*asked, "--json"]) == 0
    fillings = json.loads(capsys.readouterr().out)["fillings"]
    assert fillings == [{"text": "y = x + 1", "logprob": -1.0}, {"text": "y = 2", "logprob": -2.0}]
    assert main([*asked, "--any", "--num", "1"]) == 0
    assert capsys.readouterr().out == "   -0.50  y = (\n"
    assert file.read_text() == TEXT
    assert main([*asked, "--apply"]) == 0
    assert file.read_text() == TEXT.replace("y = x", "y = x + 1")
    told.clear()
    assert main(asked) == 1 and "--any" in capsys.readouterr().err


def test_what_cannot_be_filled_is_told(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "latin.py").write_bytes(b"x = '\xff'\n")
    for asked, words in (
        (["--file", str(tmp_path / "none.py"), "--line", "1"], "cannot be read"),
        (["--file", str(tmp_path / "latin.py"), "--line", "1"], "UTF-8"),
        (["--file", str(file), "--line", "0"], "lines 1 to 3"),
        (["--file", str(file), "--line", "1", "--num", "0"], "at least 1"),
        (["--file", str(file), "--line", "1", "--model", "ria-huge"], "no such model"),
    ):
        assert main(["complete", *asked]) == 2
        assert words in capsys.readouterr().err

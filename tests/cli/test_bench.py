"""`riallm bench`: the same benchmarks that make bench runs, their cards as they are or as one JSON object."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from riallm.__main__ import main
from riallm.bench import engine
from riallm.cli import bench
from riallm.core.errors import UsageError
from riallm.testing.tiny import write_tiny


def test_it_has_the_benchmarks_of_make() -> None:
    makefile = Path(__file__).parents[2] / "Makefile"
    (names,) = [line for line in makefile.read_text().splitlines() if line.startswith("BENCHMARKS")]
    assert set(names.partition(":=")[2].split()) == set(bench.BENCHMARKS)


@pytest.mark.parametrize("name", bench.BENCHMARKS)
def test_each_has_help_of_its_own(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["--help", "--json"]):
        with pytest.raises(SystemExit) as ended:
            main(["bench", name, *words])
        assert ended.value.code == 0
        assert capsys.readouterr().out.startswith(f"usage: riallm bench {name} ")


def test_the_card_ends_with_what_json_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "MEGABYTES", 1)
    folder = write_tiny(tmp_path / "tiny", context=128)
    words = ["--model", str(folder), "--prompt", "20", "--answer", "3", "--clients", "2", "--rounds", "1"]
    assert main(["bench", "engine", *words]) == 0
    card = capsys.readouterr().out.splitlines()
    assert card[0] == "engine" and len(card) > 10
    assert main(["bench", "engine", *words, "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    told, same = json.loads(line), json.loads(card[-1])
    assert told.keys() == same.keys() and told["command"] == f"riallm bench engine {' '.join(words)}" == same["command"]


def test_what_goes_wrong_has_its_code(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for words in ([], ["--json"]):
        assert main(["bench", "engine", "--model", "nothing", *words]) == 2
        printed = capsys.readouterr()
        assert "no model 'nothing'" in printed.err and printed.out == ""
    for name in ("nothing", "--json"):
        with pytest.raises(SystemExit) as ended:
            main(["bench", name])
        assert ended.value.code == 2
        assert "usage: riallm bench" in capsys.readouterr().err

    def lacks(name: str) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(importlib, "import_module", lacks)
    with pytest.raises(UsageError, match=r"kernels needs more than the core: .*torch.*pip install 'riallm\[models\]'"):
        bench.main(["kernels"])

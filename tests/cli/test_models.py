"""`riallm models`: the sizes are counted, the document's own figures stand beside them."""

from __future__ import annotations

import json

import pytest

from riallm.__main__ import main


def test_the_tiers_are_listed_with_both_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["models"]}
    assert list(rows)[:4] == ["ria-1b", "ria-8b", "ria-64b", "ria-128b"] and "ruvltra-medium" in rows
    assert rows["ria-8b"]["written_billions"] == 8.2
    assert 8.25e9 < rows["ria-8b"]["parameters"] < 8.4e9
    assert rows["ria-1b"]["kv_bytes_per_token"] == 24 * 2 * 4 * 128 * 2
    assert rows["ria-1b"]["weight_bytes"]["bf16"] == 2 * rows["ria-1b"]["parameters"]


def test_the_table_is_for_people(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["models", "ria-1b"]) == 0
    out = capsys.readouterr().out
    assert "ria-1b" in out and "1.30 B" in out and "1.0 B" in out and "ria-8b" not in out


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "gpt"]) == 2
    assert "no model 'gpt'; there are ria-1b" in capsys.readouterr().err
